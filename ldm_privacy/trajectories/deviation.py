"""How far a trajectory leaves the theoretical schedule, and the trajectory of an ideal memoriser beside it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ldm_privacy.trajectories.decompose import Coefficients


@dataclass(frozen=True, eq=False)
class Deviation:
    """Of one trajectory a row. Both are linear in w0 and wT: a caption's mean over its seeds is that of its mean w0 and wT.

    Attributes:
        d1: (batch,), sum over the states of w0 - sqrt(abar): positive where the training latent comes too early.
        d2: (batch,), -sum of wT - sqrt(1 - abar): positive where randomness is lost too early.
    """

    d1: Tensor
    d2: Tensor


def deviation(coefficients: Coefficients, alphas_cumprod: Tensor, *, num_steps: int | None = None) -> Deviation:
    """D1 = sum_t (w0 - sqrt(abar_t)), D2 = -sum_t (wT - sqrt(1 - abar_t)), over the states.

    abar_t is that *of the state*, after the update; the authors' code takes the one before it, which adds the same to
    everyone's (+.924 to D1 and +.968 to D2 for Stable Diffusion's 50 leading steps).

    Args:
        coefficients: Of all states.
        alphas_cumprod: (steps,), abar of each state: `Schedule.abar[1:]`.
        num_steps: Of the first so many states alone.

    Source: Kim, Kim, Lee 2025, arXiv 2509.25705, section 4.
    """
    if alphas_cumprod.shape != coefficients.clean.shape[:1]:
        raise ValueError(
            f"{tuple(alphas_cumprod.shape)} alphas_cumprod for {len(coefficients.clean)} states: give each its own"
        )
    abar = alphas_cumprod.cpu().double()[:num_steps, None]
    clean, noise = coefficients.clean[:num_steps], coefficients.noise[:num_steps]
    return Deviation((clean - abar.sqrt()).sum(0), -(noise - (1 - abar).sqrt()).sum(0))


def affine_coefficients(abar: Tensor, clean_gain: Tensor | float, state_gain: Tensor | float = 0.0) -> Coefficients:
    """The coefficients of a trajectory whose guided clean prediction is k_t x + m_t x_t, exactly.

    With s = sqrt(1 - abar), r = s_next / s, q = sqrt(abar_next) - r sqrt(abar): w0 <- (r + q m) w0 + q k, wT <- (r + q m) wT,
    from (0, 1).

    Args:
        abar: (steps + 1,), of the start and of every state: `Schedule.abar`.
        clean_gain, state_gain: k and m, (steps,) or one number.

    Returns:
        (steps, 1) each.
    """
    abar = abar.cpu().double()
    steps = len(abar) - 1
    gain, kept = (torch.as_tensor(each).double().expand(steps) for each in (clean_gain, state_gain))
    clean, noise = torch.zeros(steps + 1, dtype=torch.float64), torch.ones(steps + 1, dtype=torch.float64)
    for step in range(steps):
        ratio = ((1 - abar[step + 1]) / (1 - abar[step])).sqrt()
        towards = abar[step + 1].sqrt() - ratio * abar[step].sqrt()
        factor = ratio + towards * kept[step]
        clean[step + 1], noise[step + 1] = factor * clean[step] + towards * gain[step], factor * noise[step]
    one, unknown = torch.ones(steps, 1, dtype=torch.float64), torch.full((1,), torch.nan, dtype=torch.float64)
    return Coefficients(clean[1:, None], noise[1:, None], None, one, unknown, unknown)


def memoriser_coefficients(abar: Tensor, guidance_scale: float = 1.0, *, against_normal: bool = False) -> Coefficients:
    """Of the ideal memoriser: its conditional clean prediction is the training latent x itself.

    Its unconditional clean prediction is 0, so the guided one g x; or, with `against_normal`, that of the exact denoiser of
    N(0, I), sqrt(abar) x_t, so g x + (1 - g) sqrt(abar) x_t. Even at g = 1 its D1 and D2 are not 0, because the first state is
    not pure noise: what a trajectory is compared with.

    Args:
        abar: (steps + 1,), `Schedule.abar`.
        guidance_scale: g.
        against_normal: See above.
    """
    state_gain = (1 - guidance_scale) * abar[:-1].double().sqrt() if against_normal else 0.0
    return affine_coefficients(abar, guidance_scale, state_gain)
