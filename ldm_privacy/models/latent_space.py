"""The latent coordinate system that the denoiser sees: an autoencoder and a normalisation, z = (mu(x) - shift) * scale.

Which latents the denoiser sees is part of the protocol (a mere change of channel scale moves every attack), so the
normalisation is explicit, computed from the members only, stored and printed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from ldm_privacy.types import Image, Latent

NormalisationMode = Literal["none", "scaling_factor", "per_channel"]


@dataclass(frozen=True)
class LatentNormalisation:
    """shift and scale, (channels, 1, 1) each: latent = (posterior mean - shift) * scale."""

    mode: NormalisationMode
    shift: Tensor
    scale: Tensor

    def to(self, device: torch.device | str) -> "LatentNormalisation":
        """The same on another device."""
        return LatentNormalisation(self.mode, self.shift.to(device), self.scale.to(device))

    def state_dict(self) -> dict[str, Any]:
        """Plain tensors and strings, for a checkpoint."""
        return {"mode": self.mode, "shift": self.shift.cpu(), "scale": self.scale.cpu()}

    @staticmethod
    def from_state_dict(state: Mapping[str, Any]) -> "LatentNormalisation":
        """The inverse of `state_dict`."""
        return LatentNormalisation(state["mode"], state["shift"], state["scale"])

    def __str__(self) -> str:
        if self.mode == "none":
            return "none (posterior means as they are)"
        if self.mode == "scaling_factor":
            return f"one scaling factor, {self.scale.flatten()[0].item():.4g}"
        shift = ", ".join(f"{value:.3g}" for value in self.shift.flatten().tolist())
        scale = ", ".join(f"{value:.3g}" for value in self.scale.flatten().tolist())
        return f"per channel, shift [{shift}], scale [{scale}]"


def fit_normalisation(posterior_mean: Tensor, mode: NormalisationMode) -> LatentNormalisation:
    """The normalisation of a set of posterior means (samples, channels, height, width), the members'.

    none: as they are. scaling_factor: one number, 1 / standard deviation of all latent numbers, no shift (Rombach et al.
    2022, 2112.10752, appendix G). per_channel: mean 0 and standard deviation 1 in each channel.
    """
    channels = posterior_mean.shape[1]
    shift = torch.zeros(channels, 1, 1)
    scale = torch.ones(channels, 1, 1)
    values = posterior_mean.double()
    if mode == "scaling_factor":
        scale = (1 / values.std().clamp_min(1e-8)).float().cpu().expand(channels, 1, 1).clone()
    elif mode == "per_channel":
        shift = values.mean(dim=(0, 2, 3)).float().cpu().reshape(channels, 1, 1)
        scale = (1 / values.std(dim=(0, 2, 3)).clamp_min(1e-8)).float().cpu().reshape(channels, 1, 1)
    return LatentNormalisation(mode, shift, scale)


class LatentSpace:
    """A frozen autoencoder with its normalisation: images to latents and back.

    Args:
        autoencoder: Put in evaluation mode and frozen.
        normalisation: Latent coordinates; see `fit_normalisation`.
    """

    def __init__(self, autoencoder: AutoencoderKL, normalisation: LatentNormalisation):
        self.autoencoder = autoencoder.eval().requires_grad_(False)
        self.normalisation = normalisation

    def to(self, device: torch.device | str) -> "LatentSpace":
        """Move both to a device; returns self."""
        self.autoencoder.to(device)
        self.normalisation = self.normalisation.to(device)
        return self

    @property
    def device(self) -> torch.device:
        """Where the autoencoder lies."""
        return self.autoencoder.device

    def encode(self, image: Image) -> Latent:
        """The normalised posterior mean; deterministic, one encoder pass."""
        mean = posterior_mean(self.autoencoder, image)
        return (mean - self.normalisation.shift) * self.normalisation.scale

    def decode(self, latent: Latent) -> Image:
        """D(z) = decode(z / scale + shift), one decoder pass; differentiable in the latent."""
        latent = latent.to(self.normalisation.scale.device)
        scale, shift = (value.to(latent.dtype) for value in (self.normalisation.scale, self.normalisation.shift))
        return self.autoencoder.decode(latent / scale + shift).sample


def posterior_mean(autoencoder: AutoencoderKL, image: Image) -> Tensor:
    """mu(x), before any normalisation. One encoder pass."""
    return autoencoder.encode(image.to(autoencoder.device)).latent_dist.mean


@torch.no_grad()
def encode_images(
    encode: Callable[[Image], Tensor],
    images: Callable[[Tensor], Image],
    sample_index: Tensor,
    *,
    batch_size: int,
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """Encode many images in batches: (samples, channels, height, width), on the CPU.

    Args:
        encode: Images to latents (`LatentSpace.encode`, or a partial `posterior_mean`).
        images: Sample indices to images in [-1, 1].
        sample_index: (samples,), the order of the result.
        batch_size: Images per encoder pass.
        progress: Called with the number of samples done so far.
    """
    latents = []
    for start in range(0, len(sample_index), batch_size):
        latents.append(encode(images(sample_index[start : start + batch_size])).cpu())
        if progress is not None:
            progress(min(start + batch_size, len(sample_index)))
    return torch.cat(latents)
