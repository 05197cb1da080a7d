"""Codecs: images <-> the coordinates that the denoiser sees."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ldm_privacy.device import rows_within
from ldm_privacy.errors import UserError, reason_of
from ldm_privacy.models.channel_map import ChannelMap
from ldm_privacy.registry import CODECS
from ldm_privacy.types import Image, Latent


class Codec:
    """A frozen map between images and latents: `encode = channel map of mean`, `decode` back.

    A subclass writes `mean`, `decode`, `latent_shape`, `record` and `from_record`; one that is trained or has a decoder worth
    looking into also sets `network`. Configs call `build` where a subclass has it, else the constructor; either may take
    `image_channels` and `resolution`.

    Attributes:
        name: Under which it is registered and recorded.
        network: What stage 1 trains and whose decoder has influence and distortion; None where there is none.
        channel_map: From posterior means to latents.
        device: Where it computes.
        bytes_per_number: What a pass without gradients is taken to hold per number of the image; see docs/reference/memory.md.
    """

    name: ClassVar[str]
    network: nn.Module | None = None
    channel_map: ChannelMap = ChannelMap.identity(1)
    device: torch.device = torch.device("cpu")
    bytes_per_number: float = 2048

    def latent_shape(self, image_channels: int, resolution: int) -> torch.Size:
        """(channels, height, width) of the latents of such images; no network passes."""
        raise NotImplementedError

    def images_per_pass(self, image_shape: torch.Size) -> int:
        """How many such images, (channels, height, width), go through the networks at once; see `limit_memory`."""
        return rows_within(self.bytes_per_number * image_shape.numel(), self.device)

    def mean(self, image: Image) -> Tensor:
        """The posterior mean, before the channel map; deterministic, one encoder pass."""
        raise NotImplementedError

    def encode(self, image: Image) -> Latent:
        """The latent; deterministic, one encoder pass."""
        return self.channel_map(self.mean(image))

    def decode(self, latent: Latent) -> Image:
        """The image of a latent, one decoder pass; differentiable in the latent."""
        raise NotImplementedError

    def to(self, device: torch.device | str) -> "Codec":
        """Move it; returns self."""
        self.device = torch.device(device)
        if self.network is not None:
            self.network.to(device)
        return self

    def weights(self) -> Mapping[str, Tensor]:
        """What decides its posterior means, with `settings`: part of the fingerprint of everything that is stored of it."""
        if self.network is not None:
            return self.network.state_dict()
        return {name: value for name, value in self.record().items() if isinstance(value, Tensor)}

    def settings(self) -> dict[str, Any]:
        """What else decides them: the plain values of its record."""
        return {name: value for name, value in self.record().items() if isinstance(value, str | bool | int | float)}

    def record(self) -> dict[str, Any]:
        """For a checkpoint: plain values and tensors, with the entry "class", the codec's name."""
        raise NotImplementedError

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Codec":
        """The inverse of `record`. Raises UserError where a part is missing or something else."""
        raise NotImplementedError

    def __str__(self) -> str:
        return f"{self.name}, channel map: {self.channel_map}"


def codec_from_record(record: object) -> Codec:
    """The codec that a checkpoint holds. Raises UserError for no record, or one of an unknown codec (name its plug-in)."""
    if not isinstance(record, dict) or not isinstance(record.get("class"), str):
        raise UserError("its codec is missing or holds something else")
    codec: Any = CODECS.get(record["class"])
    try:
        return codec.from_record(record)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"its codec '{record['class']}' is damaged ({reason_of(error)})") from None
