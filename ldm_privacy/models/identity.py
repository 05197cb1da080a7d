"""Pixel space: the denoiser sees the images themselves."""

from collections.abc import Mapping
from typing import Any

import torch

from ldm_privacy.models.channel_map import ChannelMap
from ldm_privacy.models.codec import Codec
from ldm_privacy.registry import CODECS
from ldm_privacy.types import Image, Latent


@CODECS.register("identity")
class IdentityCodec(Codec):
    """latent = image. It has no decoder, so there is neither influence nor local distortion, and stage 1 is skipped.

    Args:
        image_channels: 1 or 3.
    """

    name = "identity"
    bytes_per_number = 64

    def __init__(self, *, image_channels: int):
        self.image_channels = image_channels
        self.channel_map = ChannelMap.identity(image_channels)

    def latent_shape(self, image_channels: int, resolution: int) -> torch.Size:
        return torch.Size((image_channels, resolution, resolution))

    def mean(self, image: Image) -> Latent:
        """The image."""
        return image.to(self.device)

    def decode(self, latent: Latent) -> Image:
        """The image."""
        return latent

    def record(self) -> dict[str, Any]:
        return {"class": self.name, "image_channels": self.image_channels}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "IdentityCodec":
        return cls(image_channels=int(record["image_channels"]))

    def __str__(self) -> str:
        return "identity (pixel space)"
