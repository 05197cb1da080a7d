"""Noise predictors whose answer to an audit is known."""

import torch

from ldm_privacy.models.ideal import IdealDenoiser


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


class Told:
    """A predictor for each condition: `c` (batch,) says which."""

    def __init__(self, *predictors):
        self.predictors = predictors
        self.alphas_cumprod = predictors[0].alphas_cumprod

    def __call__(self, noisy_latent, timestep, condition):
        answer = torch.empty_like(noisy_latent)
        for place, predictor in enumerate(self.predictors):
            rows = condition["c"] == place
            answer[rows] = predictor(noisy_latent[rows], timestep[rows], {})
        return answer


class ToldMemoriser(IdealDenoiser):
    """The perfect memoriser that is told which of its samples is meant: `c` (batch,) its number, -1 for none in particular."""

    def __call__(self, noisy_latent, timestep, condition):
        abar = self.alphas_cumprod[timestep][:, None, None, None]
        exact = (noisy_latent - abar.sqrt() * self.dataset[condition["c"]]) / (1 - abar).sqrt()
        among_all = super().__call__(noisy_latent, timestep, {})
        return torch.where((condition["c"] < 0)[:, None, None, None], among_all, exact.to(noisy_latent.dtype))
