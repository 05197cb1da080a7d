"""The diffusion algebra, in tensors: noising, what a network's output means, and the deterministic DDIM step.

z_t = sqrt(abar_t) z0 + sqrt(1 - abar_t) n. Timestep 0 is *almost* clean: abar_0 = 1 - beta_0.
"""

from typing import Literal

from torch import Tensor

PredictionType = Literal["epsilon", "v_prediction", "sample"]


def per_sample(value: Tensor, like: Tensor) -> Tensor:
    """(batch,) -> (batch, 1, 1, 1) in the dtype and on the device of `like`."""
    return value.to(like).reshape(-1, *[1] * (like.ndim - 1))


def add_noise(latent: Tensor, noise: Tensor, alphas_cumprod: Tensor, timestep: Tensor) -> Tensor:
    """z_t = sqrt(abar_t) z0 + sqrt(1 - abar_t) n (Ho et al. 2020, 2006.11239, eq. 4). `timestep`: (batch,) int."""
    abar = per_sample(alphas_cumprod.to(timestep.device)[timestep], latent)
    return abar.sqrt() * latent + (1 - abar).sqrt() * noise


def training_target(
    latent: Tensor, noise: Tensor, alphas_cumprod: Tensor, timestep: Tensor, prediction_type: PredictionType
) -> Tensor:
    """What the network learns to output: n, v = sqrt(abar) n - sqrt(1 - abar) z0 (Salimans, Ho 2022, 2202.00512) or z0."""
    if prediction_type == "epsilon":
        return noise
    if prediction_type == "sample":
        return latent
    abar = per_sample(alphas_cumprod.to(timestep.device)[timestep], latent)
    return abar.sqrt() * noise - (1 - abar).sqrt() * latent


def epsilon_from_output(
    output: Tensor, noisy_latent: Tensor, alphas_cumprod: Tensor, timestep: Tensor, prediction_type: PredictionType
) -> Tensor:
    """The noise that a network's output implies at z_t: the inverse of `training_target` for known z_t."""
    if prediction_type == "epsilon":
        return output
    abar = per_sample(alphas_cumprod.to(timestep.device)[timestep], noisy_latent)
    if prediction_type == "v_prediction":
        return abar.sqrt() * output + (1 - abar).sqrt() * noisy_latent
    return (noisy_latent - abar.sqrt() * output) / (1 - abar).sqrt()


def predicted_clean(noisy_latent: Tensor, epsilon: Tensor, abar: Tensor) -> Tensor:
    """The clean latent that a predicted noise implies, (z_t - sqrt(1 - abar) epsilon) / sqrt(abar); never clipped."""
    abar = per_sample(abar.reshape(-1), noisy_latent)
    return (noisy_latent - (1 - abar).sqrt() * epsilon) / abar.sqrt()


def ddim_step(noisy_latent: Tensor, epsilon: Tensor, abar_from: Tensor, abar_to: Tensor) -> Tensor:
    """One deterministic DDIM step, in either direction, without clipping (Song et al. 2021, 2010.02502, eq. 12, sigma = 0).

    Args:
        noisy_latent: The state at `abar_from`.
        epsilon: The noise predicted there.
        abar_from, abar_to: alphas_cumprod of both ends, scalars or (batch,) tensors.
    """
    clean, abar_to = predicted_clean(noisy_latent, epsilon, abar_from), per_sample(abar_to.reshape(-1), noisy_latent)
    return abar_to.sqrt() * clean + (1 - abar_to).sqrt() * epsilon
