"""Noise predictors whose answer to an audit is known."""

import torch


class Memoriser:
    """Predicts little noise on the latents that it knows, and plain noise of the latent's own on all others."""

    alphas_cumprod = torch.linspace(0.9999, 0.01, 1000)

    def __init__(self, known, only_at=None):
        self.known = known.flatten(1)
        self.only_at = only_at

    def __call__(self, noisy_latent, timestep, condition):
        distance = torch.cdist(noisy_latent.flatten(1), self.known, compute_mode="donot_use_mm_for_euclid_dist")
        is_known = distance.min(dim=1).values < 1e-3
        if self.only_at is not None:
            is_known &= timestep == self.only_at
        noise = torch.sin(1000 * noisy_latent + timestep[:, None, None, None])
        return noise * torch.where(is_known, 0.5, 1.0)[:, None, None, None]
