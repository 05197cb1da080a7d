"""The diffusion algebra, in tensors: noising, what a network's output means, and the deterministic DDIM step.

z_t = sqrt(abar_t) z0 + sqrt(1 - abar_t) n. Timestep 0 is *almost* clean: abar_0 = 1 - beta_0.

A rectified flow (Liu et al. 2022, 2209.03003; Lipman et al. 2022, 2210.02747) has x_s = (1 - s) z0 + s n, s = 0 the data, and
learns v = n - z0. Divided by sqrt((1 - s)^2 + s^2), x_s is z_t with abar = (1 - s)^2 / ((1 - s)^2 + s^2), so all that is asked
for epsilon at z_t can be asked of a flow, and a deterministic DDIM step of z_t is an Euler step of dx/ds = v.
"""

from typing import Literal, get_args

import torch
from torch import Tensor

from ldm_privacy.errors import UserError

PredictionType = Literal["epsilon", "v_prediction", "sample", "flow"]
PREDICTION_TYPES: tuple[PredictionType, ...] = get_args(PredictionType)


def check_prediction_type(prediction_type: str, alphas_cumprod: Tensor | None = None) -> None:
    """Raise UserError where it is unknown, or where one of it and a schedule, if that is given, is a flow's alone."""
    if prediction_type not in PREDICTION_TYPES:
        raise UserError(f"prediction_type: {prediction_type!r} is unknown; known: {', '.join(PREDICTION_TYPES)}.")
    if alphas_cumprod is None:
        return
    of_flow = flow_alphas_cumprod(len(alphas_cumprod)).to(alphas_cumprod)
    is_flow = torch.allclose(alphas_cumprod, of_flow, rtol=1e-3, atol=1e-6)
    if is_flow != (prediction_type == "flow"):
        whose = "is a flow's" if is_flow else "is no flow's"
        raise UserError(f"prediction_type: {prediction_type!r}, and the scheduler {whose}; one of them is wrong.")


def per_sample(value: Tensor, like: Tensor) -> Tensor:
    """(batch,) -> (batch, 1, 1, 1) in the dtype and on the device of `like`."""
    return value.to(like).reshape(-1, *[1] * (like.ndim - 1))


def levels(abar: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """sqrt(abar) and sqrt(1 - abar), (batch, 1, 1, 1), rounded to the dtype of `like` last: 1 - abar may be 1e-6."""
    return per_sample(abar.sqrt(), like), per_sample((1 - abar).sqrt(), like)


def flow_alphas_cumprod(num_train_timesteps: int = 1000) -> Tensor:
    """abar of a rectified flow, float64: timestep t is sigma = (t + 1) / (num_train_timesteps + 1), never 0 and never 1."""
    sigma = torch.arange(1, num_train_timesteps + 1, dtype=torch.float64) / (num_train_timesteps + 1)
    return (1 - sigma).square() / ((1 - sigma).square() + sigma.square())


def flow_sigma(abar: Tensor) -> Tensor:
    """The share of noise s in x_s = (1 - s) z0 + s n, like `abar`: sqrt(1 - abar) / (sqrt(abar) + sqrt(1 - abar))."""
    return (1 - abar).sqrt() / (abar.sqrt() + (1 - abar).sqrt())


def flow_timestep(sigma: float, num_train_timesteps: int) -> int:
    """The timestep of `flow_alphas_cumprod` nearest to a sigma from 0 to 1."""
    return min(max(round(sigma * (num_train_timesteps + 1)) - 1, 0), num_train_timesteps - 1)


def flow_state(noisy_latent: Tensor, abar: Tensor) -> Tensor:
    """x_s of z_t at abar, (batch,): z_t / (sqrt(abar) + sqrt(1 - abar))."""
    signal, spread = levels(abar, noisy_latent)
    return noisy_latent / (signal + spread)


def add_noise(latent: Tensor, noise: Tensor, alphas_cumprod: Tensor, timestep: Tensor) -> Tensor:
    """z_t = sqrt(abar_t) z0 + sqrt(1 - abar_t) n (Ho et al. 2020, 2006.11239, eq. 4). `timestep`: (batch,) int."""
    signal, spread = levels(alphas_cumprod.to(timestep.device)[timestep], latent)
    return signal * latent + spread * noise


def training_target(
    latent: Tensor, noise: Tensor, alphas_cumprod: Tensor, timestep: Tensor, prediction_type: PredictionType
) -> Tensor:
    """What the network learns to output.

    "epsilon": n; "v_prediction": sqrt(abar) n - sqrt(1 - abar) z0 (Salimans, Ho 2022, 2202.00512); "sample": z0; "flow":
    n - z0.
    """
    check_prediction_type(prediction_type)
    if prediction_type == "epsilon":
        return noise
    if prediction_type == "sample":
        return latent
    if prediction_type == "flow":
        return noise - latent
    signal, spread = levels(alphas_cumprod.to(timestep.device)[timestep], latent)
    return signal * noise - spread * latent


def epsilon_from_output(
    output: Tensor, noisy_latent: Tensor, alphas_cumprod: Tensor, timestep: Tensor, prediction_type: PredictionType
) -> Tensor:
    """The noise that a network's output implies at z_t: the inverse of `training_target` for known z_t.

    Of a flow x_s + (1 - s) v, which is (z_t + sqrt(abar) v) / (sqrt(abar) + sqrt(1 - abar)).
    """
    check_prediction_type(prediction_type)
    if prediction_type == "epsilon":
        return output
    signal, spread = levels(alphas_cumprod.to(timestep.device)[timestep], noisy_latent)
    if prediction_type == "flow":
        return (noisy_latent + signal * output) / (signal + spread)
    if prediction_type == "v_prediction":
        return signal * output + spread * noisy_latent
    return (noisy_latent - signal * output) / spread


def predicted_clean(noisy_latent: Tensor, epsilon: Tensor, abar: Tensor) -> Tensor:
    """The clean latent that a predicted noise implies, (z_t - sqrt(1 - abar) epsilon) / sqrt(abar); never clipped."""
    signal, spread = levels(abar.reshape(-1), noisy_latent)
    return (noisy_latent - spread * epsilon) / signal


def ddim_step(noisy_latent: Tensor, epsilon: Tensor, abar_from: Tensor, abar_to: Tensor) -> Tensor:
    """One deterministic DDIM step, in either direction, without clipping (Song et al. 2021, 2010.02502, eq. 12, sigma = 0).

    Args:
        noisy_latent: The state at `abar_from`.
        epsilon: The noise predicted there.
        abar_from, abar_to: alphas_cumprod of both ends, scalars or (batch,) tensors.
    """
    signal, spread = levels(abar_to.reshape(-1), noisy_latent)
    return signal * predicted_clean(noisy_latent, epsilon, abar_from) + spread * epsilon
