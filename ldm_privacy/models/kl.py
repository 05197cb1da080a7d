"""The KL codec: diffusers' AutoencoderKL with a channel map."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from diffusers.models.attention_processor import AttnProcessor
from pydantic import PositiveInt
from torch import Tensor

from ldm_privacy.device import in_passes
from ldm_privacy.errors import UserError
from ldm_privacy.models.channel_map import ChannelMap
from ldm_privacy.models.codec import Codec
from ldm_privacy.models.weights import Channels, built_with, check_groups
from ldm_privacy.registry import CODECS
from ldm_privacy.types import Image, Latent

BYTES_PER_WIDTH = 48
"""What a pass without gradients is taken to hold per pixel and channel of the finest block. Measured: 20 to 48, see
docs/reference/memory.md."""


@CODECS.register("kl")
class KLCodec(Codec):
    """latent = channel map of the posterior mean; D(z) = decode(inverse channel map of z).

    Args:
        autoencoder: Any AutoencoderKL; put in evaluation mode and frozen (stage 1 thaws it).
        channel_map: None: posterior means as they are.

    Attributes:
        factor: Of the latents' height and width to the images'.
    """

    name = "kl"

    def __init__(self, autoencoder: AutoencoderKL, channel_map: ChannelMap | None = None):
        # J v is the derivative of J^T u; the fused attention kernel has no second derivative, the plain processor has.
        autoencoder.set_attn_processor(AttnProcessor())
        self.network: AutoencoderKL = autoencoder.eval().requires_grad_(False)
        self._channels = autoencoder.config["latent_channels"]
        widths = autoencoder.config["block_out_channels"]
        self.bytes_per_number = BYTES_PER_WIDTH * widths[0] / autoencoder.config["out_channels"]
        self.factor = 2 ** (len(widths) - 1)
        self.channel_map = channel_map or ChannelMap.identity(self._channels)
        self.device = autoencoder.device

    @classmethod
    def scaled(cls, autoencoder: AutoencoderKL) -> "KLCodec":
        """With the scaling of diffusers' pipelines and training scripts.

        latent = (mean - shift_factor) * scaling_factor, or (mean - latents_mean) * scaling_factor / latents_std, by channel.
        Raises UserError where the config states both, or numbers that can't be.
        """
        return cls(autoencoder, scaling_of(autoencoder.config))

    @classmethod
    def build(
        cls,
        *,
        image_channels: int,
        resolution: int,
        block_out_channels: Channels = (128, 128, 256),
        layers_per_block: PositiveInt = 1,
        latent_channels: PositiveInt = 4,
        mid_block_attention: bool = False,
        norm_num_groups: PositiveInt = 32,
    ) -> "KLCodec":
        """A KL autoencoder with random weights; each block after the first halves height and width.

        The defaults are the CIFAR-10 autoencoder of Rao, Qu, Moyer (2511.20592): f = 4, 4 latent channels, no attention.

        Args:
            image_channels: 1 or 3.
            resolution: Image height and width; UserError unless divisible by 2^(len(block_out_channels) - 1).
            block_out_channels: Channels per resolution, finest first; UserError unless multiples of `norm_num_groups`.
            layers_per_block: Residual blocks per resolution in the encoder (the decoder has one more).
            latent_channels: Channels of the latent.
            mid_block_attention: Self-attention at the coarsest resolution.
            norm_num_groups: Groups of every group normalisation.
        """
        num_blocks = len(block_out_channels)
        factor = 2 ** (num_blocks - 1)
        if resolution % factor:
            raise UserError(
                f"data.resolution: {resolution} can't be halved {num_blocks - 1} times, as autoencoder.network."
                f"block_out_channels {list(block_out_channels)} asks. Use a multiple of {factor}, or fewer blocks."
            )
        check_groups("autoencoder.network", block_out_channels, norm_num_groups)
        return cls(
            AutoencoderKL(
                in_channels=image_channels,
                out_channels=image_channels,
                down_block_types=("DownEncoderBlock2D",) * num_blocks,
                up_block_types=("UpDecoderBlock2D",) * num_blocks,
                block_out_channels=tuple(block_out_channels),
                layers_per_block=layers_per_block,
                latent_channels=latent_channels,
                norm_num_groups=norm_num_groups,
                mid_block_add_attention=mid_block_attention,
                sample_size=resolution,
            )
        )

    def latent_shape(self, image_channels: int, resolution: int) -> torch.Size:
        size = resolution // self.factor
        return torch.Size((self._channels, size, size))

    def mean(self, image: Image) -> Tensor:
        def mean(image: Image) -> Tensor:
            mean = self.network.encode(image.to(self.device, self.network.dtype)).latent_dist.mean.to(image.dtype)
            return mean.contiguous()  # as one that is read from a store: sums are rounded in the order of memory

        return in_passes(mean, image, self.images_per_pass(image.shape[1:]))

    def decode(self, latent: Latent) -> Image:
        def decode(latent: Latent) -> Image:
            mean = self.channel_map.inverse(latent.to(self.device))
            return self.network.decode(mean.to(self.network.dtype)).sample.to(latent.dtype)

        height, width = latent.shape[-2:]
        image_shape = torch.Size((self.network.config["out_channels"], height * self.factor, width * self.factor))
        return in_passes(decode, latent, self.images_per_pass(image_shape))

    def save(self, folder: Path) -> None:
        """Write a diffusers folder (config.json, safetensors) that `pretrained` and diffusers itself load."""
        self.network.save_pretrained(folder, safe_serialization=True)

    def settings(self) -> dict[str, Any]:
        return {"class": KLCodec.name, **self._config()}  # equal weights in other groups make other means

    def _config(self) -> dict[str, Any]:
        """Of the network, for JSON."""
        settings = {key: value for key, value in self.network.config.items() if not key.startswith("_")}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()}

    def record(self) -> dict[str, Any]:
        return {
            "class": self.name,
            "config": self._config(),
            "weights": {name: value.cpu() for name, value in self.network.state_dict().items()},
            "channel_map": self.channel_map.record(),
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "KLCodec":
        autoencoder = autoencoder_with(record.get("config"), record.get("weights"))
        channel_map = record.get("channel_map")
        channels = autoencoder.config["latent_channels"]
        return cls(autoencoder, ChannelMap.from_record(channel_map if isinstance(channel_map, dict) else {}, channels))


def autoencoder_with(config: object, weights: object) -> AutoencoderKL:
    """The AutoencoderKL of those settings (a diffusers config.json) and weights; neither is trusted.

    Raises UserError where they make no autoencoder, or don't fit each other: nothing is allocated before they are known to.
    """
    if not isinstance(config, dict) or not isinstance(weights, dict):
        raise UserError("the settings or weights of its autoencoder are missing or hold something else")
    blocks, depth = config.get("block_out_channels"), config.get("layers_per_block")
    if not isinstance(blocks, Sequence) or not isinstance(depth, int) or len(blocks) * depth > len(weights):
        raise UserError(f"its autoencoder can't be used ({blocks} channels with {depth} layers for {len(weights)} weights)")
    return built_with(lambda: AutoencoderKL.from_config(dict(config)), weights, "its autoencoder")


def scaling_of(config: Mapping[str, Any]) -> ChannelMap:
    """The channel map that an autoencoder's config stands for; see `KLCodec.scaled`."""
    channels = config["latent_channels"]

    def numbers(key: str, default: float) -> Tensor:
        value = default if config.get(key) is None else config[key]
        try:
            found = torch.as_tensor(value, dtype=torch.float64)
            return found.expand(channels) if found.ndim == 0 else found.reshape(channels)
        except (TypeError, ValueError, RuntimeError):
            raise UserError(f"the autoencoder's {key}, {value!r}, is not {channels} numbers, one by channel.") from None

    shift, factor = numbers("shift_factor", 0.0), numbers("scaling_factor", 1.0)
    mean, std = numbers("latents_mean", 0.0), numbers("latents_std", 1.0)
    if shift.any() and mean.any():
        raise UserError("the autoencoder's config has a shift_factor and latents_mean; which one counts is not known.")
    if not all(bool(each.isfinite().all()) for each in (shift, factor, mean, std)) or bool((factor * std <= 0).any()):
        raise UserError("the autoencoder's scaling_factor and latents_std are to be positive numbers.")
    return ChannelMap.diagonal("diffusers", shift + mean, factor / std)
