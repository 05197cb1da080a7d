"""Stage 1: the KL autoencoder."""

from typing import Literal

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from ldm_privacy.training.stepwise import CompileMode, StepwiseModule
from ldm_privacy.types import Image


class AutoencoderModule(StepwiseModule):
    """Trains an AutoencoderKL: reconstruction + kl_weight * mean KL.

    loss = mean |x - x'| (or squared) + kl_weight * KL averaged over all latent numbers (Rao, Qu, Moyer, 2511.20592). The
    latent is sampled from the posterior; noise and flips of a step come from (seed, epoch, step).

    Args:
        autoencoder: The network.
        images: (samples, image_channels, height, width) uint8, the images to train on; moved to the device once.
        reconstruction: "l1" or "l2".
        kl_weight: beta.
        flip: Mirror each image with probability 1/2.
        batch_size, learning_rate, weight_decay, seed, compile_mode, channels_last: See `StepwiseModule`.
    """

    def __init__(
        self,
        autoencoder: AutoencoderKL,
        images: Tensor,
        *,
        reconstruction: Literal["l1", "l2"] = "l1",
        kl_weight: float = 1e-2,
        flip: bool = True,
        batch_size: int = 128,
        learning_rate: float = 2e-4,
        weight_decay: float = 1e-2,
        seed: int = 0,
        compile_mode: CompileMode = "none",
        channels_last: bool = False,
    ):
        super().__init__(
            stage="autoencoder",
            num_samples=len(images),
            batch_size=batch_size,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            seed=seed,
            compile_mode=compile_mode,
            channels_last=channels_last,
        )
        self.autoencoder = autoencoder
        self.lay_out(autoencoder)
        self.images = images
        self.reconstruction = reconstruction
        self.kl_weight = kl_weight
        self.flip = flip
        self._objective = autoencoding_losses

    def on_fit_start(self) -> None:
        self.images = self.images.to(self.device)
        self._objective = self.compiled(autoencoding_losses)

    def on_fit_end(self) -> None:
        self.lay_out(self.autoencoder, channels_last=False)  # as it is stored, and as a stored one is loaded

    def loss(self, indices: Tensor) -> dict[str, Tensor]:
        """One encoder and one decoder pass, forward and backward."""
        count = len(indices)
        image = self.images[self.share(indices)].float() / 127.5 - 1
        if self.flip:
            mirrored = self.share(torch.rand(count, 1, 1, 1, device=image.device)) < 0.5
            image = torch.where(mirrored, image.flip(-1), image)
        settings = self.autoencoder.config
        factor = 2 ** (len(settings["block_out_channels"]) - 1)
        shape = (count, settings["latent_channels"], image.shape[2] // factor, image.shape[3] // factor)
        noise = self.share(torch.randn(shape, device=image.device))
        reconstruction, kl = self._objective(self.autoencoder, image, noise, self.reconstruction)
        return {"loss": reconstruction + self.kl_weight * kl, "reconstruction": reconstruction, "kl": kl}


def autoencoding_losses(
    autoencoder: AutoencoderKL, image: Image, noise: Tensor, reconstruction: Literal["l1", "l2"]
) -> tuple[Tensor, Tensor]:
    """Mean reconstruction error and mean KL of images; the latent is mean + standard deviation * noise."""
    posterior = autoencoder.encode(image).latent_dist
    mean, log_variance = posterior.mean, posterior.logvar
    latent = mean + (0.5 * log_variance).exp() * noise
    error = autoencoder.decode(latent).sample - image
    kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
    return error.abs().mean() if reconstruction == "l1" else error.square().mean(), kl
