"""Noise predictors in closed form, for known answers: perfect memorisers, and one that no member has touched."""

import torch
from torch import Tensor

from ldm_privacy.diffusion import per_sample
from ldm_privacy.types import Condition, Latent, NoisePredictor, Timestep


def linear_alphas_cumprod(num_train_timesteps: int = 1000) -> Tensor:
    """alphas_cumprod of evenly spaced betas, 1e-4 to 2e-2, float64 (Ho et al. 2020, 2006.11239)."""
    return (1 - torch.linspace(1e-4, 2e-2, num_train_timesteps, dtype=torch.float64)).cumprod(0)


def scaled_linear_alphas_cumprod() -> Tensor:
    """alphas_cumprod of 1000 betas from .00085 to .012, whose square roots are evenly spaced, float64 (Stable Diffusion's)."""
    return (1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64).square()).cumprod(0)


class IdealDenoiser:
    """The perfect memoriser: the optimal noise predictor where the data distribution is the given samples themselves.

    `epsilon(z, t) = (z - sqrt(abar_t) m) / sqrt(1 - abar_t)`, m = sum_i w_i x_i the posterior mean of the clean latent, with
    weights w = softmax_i(-||z - sqrt(abar_t) x_i||^2 / (2 (1 - abar_t))): what a denoiser of unlimited capacity converges to
    on those samples. Computed in float64, since at small t the exponents reach thousands. No randomness; a query costs one
    product of the states with all samples.

    Source: Karras et al. 2022, arXiv 2206.00364, appendix B.3.

    Args:
        dataset: (samples, channels, height, width), the memorised latents.
        alphas_cumprod: (num_train_timesteps,); linear betas from 1e-4 to 2e-2 over 1000 timesteps by default.
    """

    def __init__(self, dataset: Latent, alphas_cumprod: Tensor | None = None):
        self.dataset = dataset.double()
        self.alphas_cumprod = linear_alphas_cumprod() if alphas_cumprod is None else alphas_cumprod

    def __call__(self, noisy_latent: Latent, timestep: Timestep, condition: Condition) -> Latent:
        """epsilon(z_t, t), like `noisy_latent`; the condition is not looked at."""
        state = noisy_latent.double()
        abar = self.alphas_cumprod.to(state)[timestep]
        points = self.dataset.to(state).flatten(1)
        # Terms that are the same for every point cancel in the softmax: ||z||^2 is left out.
        exponent = abar.sqrt()[:, None] * (state.flatten(1) @ points.T) - 0.5 * abar[:, None] * points.square().sum(1)
        weight = torch.softmax(exponent / (1 - abar)[:, None], dim=1)
        clean = (weight @ points).reshape(state.shape)
        epsilon = (state - per_sample(abar.sqrt(), state) * clean) / per_sample((1 - abar).sqrt(), state)
        return epsilon.to(noisy_latent.dtype)


class MembershipBlindPredictor:
    """The optimal noise predictor for a normal distribution with independent dimensions, fitted to given samples.

    `epsilon(z, t) = sqrt(1 - abar_t) (z - sqrt(abar_t) mean) / (abar_t variance + 1 - abar_t)`. Fitted to samples that are
    neither members nor held-out, it knows nothing of membership: every attack's AUROC is 0.5 but for sampling error. No
    randomness.

    Args:
        dataset: (samples, channels, height, width), the public latents that mean and variance are taken from.
        alphas_cumprod: As in `IdealDenoiser`.
    """

    def __init__(self, dataset: Latent, alphas_cumprod: Tensor | None = None):
        self.mean = dataset.double().mean(0)
        self.variance = dataset.double().var(0, correction=0)
        self.alphas_cumprod = linear_alphas_cumprod() if alphas_cumprod is None else alphas_cumprod

    def __call__(self, noisy_latent: Latent, timestep: Timestep, condition: Condition) -> Latent:
        """epsilon(z_t, t), like `noisy_latent`; the condition is not looked at."""
        state = noisy_latent.double()
        abar = per_sample(self.alphas_cumprod.to(state)[timestep], state)
        spread = abar * self.variance.to(state) + 1 - abar
        epsilon = (1 - abar).sqrt() * (state - abar.sqrt() * self.mean.to(state)) / spread
        return epsilon.to(noisy_latent.dtype)


class CaptionMemoriser:
    """The perfect memoriser of captions: under caption i its clean prediction is latent i, whatever the state.

    `epsilon(z, t, i) = (z - sqrt(abar_t) x_i) / sqrt(1 - abar_t)`; under the null caption another predictor's. Guided against
    `IdealDenoiser(zeros)` its clean prediction is g x_i, against `MembershipBlindPredictor` of mean 0 and variance 1
    g x_i + (1 - g) sqrt(abar_t) z. No randomness.

    Args:
        latent: (captions, channels, height, width).
        unconditional: Asked under the null caption, with an empty condition; its alphas_cumprod are this one's.
    """

    def __init__(self, latent: Latent, unconditional: NoisePredictor):
        self.latent = latent.double()
        self.unconditional = unconditional
        self.alphas_cumprod = unconditional.alphas_cumprod

    def null(self) -> dict[str, Tensor]:
        """The null caption: one further number."""
        return {"caption": torch.tensor([len(self.latent)])}

    def __call__(self, noisy_latent: Latent, timestep: Timestep, condition: Condition) -> Latent:
        """epsilon(z_t, t, c), like `noisy_latent`; `condition["caption"]` is (batch,) int64, a row of the latents or null."""
        caption, state = condition["caption"], noisy_latent.double()
        is_null = per_sample(caption == len(self.latent), state).bool()
        abar = per_sample(self.alphas_cumprod.to(state)[timestep], state)
        clean = self.latent.to(state)[caption.clamp(max=len(self.latent) - 1)]
        own = (state - abar.sqrt() * clean) / (1 - abar).sqrt()
        return torch.where(is_null, self.unconditional(state, timestep, {}), own).to(noisy_latent.dtype)
