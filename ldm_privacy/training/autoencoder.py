"""Stage 1: the KL autoencoder."""

from collections.abc import Mapping
from typing import Unpack

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from ldm_privacy.data.images import to_float
from ldm_privacy.losses.base import Autoencoded, CodecLoss
from ldm_privacy.training.stepwise import Steps, StepwiseModule
from ldm_privacy.types import Image


class AutoencoderModule(StepwiseModule):
    """Trains an AutoencoderKL: the sum of its losses, each times its weight.

    The latent is sampled from the posterior; noise and flips of a step come from (seed, epoch, step).

    Args:
        autoencoder: The network; put in training mode.
        images: (samples, image_channels, height, width) uint8, the images to train on; moved to the device once.
        losses: By label; each is logged under it.
        flip: Mirror each image with probability 1/2.
        steps: See `StepwiseModule`.
    """

    def __init__(
        self,
        autoencoder: AutoencoderKL,
        images: Tensor,
        losses: Mapping[str, CodecLoss],
        *,
        flip: bool = True,
        **steps: Unpack[Steps],
    ):
        super().__init__(stage="autoencoder", num_samples=len(images), **steps)
        self.autoencoder = autoencoder.train().requires_grad_(True)
        self.lay_out(autoencoder)
        self.images, self.losses, self.flip = images, dict(losses), flip
        self._objective = self._values

    def on_fit_start(self) -> None:
        self.images = self.images.to(self.device)
        self._objective = self.compiled(self._values)

    def on_fit_end(self) -> None:
        self.lay_out(self.autoencoder, channels_last=False)  # as it is stored, and as a stored one is loaded

    def loss(self, indices: Tensor) -> dict[str, Tensor]:
        """One encoder and one decoder pass, forward and backward."""
        count = len(indices)
        image = to_float(self.images[self.share(indices)])
        if self.flip:
            mirrored = self.share(torch.rand(count, 1, 1, 1, device=image.device)) < 0.5
            image = torch.where(mirrored, image.flip(-1), image)
        settings = self.autoencoder.config
        factor = 2 ** (len(settings["block_out_channels"]) - 1)
        shape = (count, settings["latent_channels"], image.shape[2] // factor, image.shape[3] // factor)
        noise = self.share(torch.randn(shape, device=image.device))
        values = dict(zip(self.losses, self._objective(self.autoencoder, image, noise)))
        total = sum(self.losses[label].weight * value for label, value in values.items())
        return {"loss": torch.as_tensor(total), **values}

    def _values(self, autoencoder: AutoencoderKL, image: Image, noise: Tensor) -> tuple[Tensor, ...]:
        """Every loss of the images; the latent is mean + standard deviation * noise."""
        posterior = autoencoder.encode(image).latent_dist
        output = autoencoder.decode(posterior.mean + (0.5 * posterior.logvar).exp() * noise).sample
        batch = Autoencoded(image, posterior.mean, posterior.logvar, output)
        return tuple(loss(batch) for loss in self.losses.values())
