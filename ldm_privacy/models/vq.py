"""The VQ codec: diffusers' VQModel without its quantisation."""

from typing import Any

import torch
from diffusers import VQModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor

from ldm_privacy.device import in_passes
from ldm_privacy.models.channel_map import ChannelMap
from ldm_privacy.models.codec import Codec
from ldm_privacy.models.kl import BYTES_PER_WIDTH
from ldm_privacy.types import Image, Latent


class VQCodec(Codec):
    """latent = scaling_factor * what the encoder returns; D(z) = decoder(z / scaling_factor): neither goes to the codebook.

    A latent diffusion model learns the latents before quantisation; its samples are quantised as the first step of decoding.
    That step is constant nearly everywhere, so the pullback metric through it is 0. Influence here is that of the decoder
    behind it, at the latent itself: the exact derivative of this `decode`, whose picture differs from the pipeline's by what
    the codebook rounds off.

    Of folders alone: none is trained here, so that it has no record for a checkpoint.

    Args:
        autoencoder: Any VQModel; put in evaluation mode and frozen.

    Attributes:
        factor: Of the latents' height and width to the images'.
    """

    name = "vq"

    def __init__(self, autoencoder: VQModel):
        for module in autoencoder.modules():
            if hasattr(module, "set_processor"):
                module.set_processor(AttnProcessor())  # the fused attention kernel has no second derivative
        self.network: VQModel = autoencoder.eval().requires_grad_(False)
        config = autoencoder.config
        self._channels = config["vq_embed_dim"] or config["latent_channels"]
        self.bytes_per_number = BYTES_PER_WIDTH * config["block_out_channels"][0] / config["out_channels"]
        self.factor = 2 ** (len(config["block_out_channels"]) - 1)
        scale = torch.full((self._channels,), float(config["scaling_factor"]))
        self.channel_map = ChannelMap.diagonal("diffusers", torch.zeros(self._channels), scale)
        self.device = autoencoder.device

    def latent_shape(self, image_channels: int, resolution: int) -> torch.Size:
        size = resolution // self.factor
        return torch.Size((self._channels, size, size))

    def mean(self, image: Image) -> Tensor:
        """What the encoder returns, before quantisation."""

        def mean(image: Image) -> Tensor:
            return self.network.encode(image.to(self.device, self.network.dtype)).latents.to(image.dtype)

        return in_passes(mean, image, self.images_per_pass(image.shape[1:]))

    def decode(self, latent: Latent) -> Image:
        def decode(latent: Latent) -> Image:
            mean = self.channel_map.inverse(latent.to(self.device))
            return self.network.decode(mean.to(self.network.dtype), force_not_quantize=True).sample.to(latent.dtype)

        height, width = latent.shape[-2:]
        image_shape = torch.Size((self.network.config["out_channels"], height * self.factor, width * self.factor))
        return in_passes(decode, latent, self.images_per_pass(image_shape))

    def settings(self) -> dict[str, Any]:
        return {"class": self.name}
