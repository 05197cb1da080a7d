"""DIME: the energy and the divergence of the predicted noise around the scaled latent."""

import math
from collections.abc import Sequence
from typing import NamedTuple, Unpack

import torch
from torch import Tensor

from ldm_privacy.attacks.base import Attack, check_num_draws
from ldm_privacy.attacks.query import DenoiserQuery
from ldm_privacy.attacks.runner import RunOptions, masked_sums
from ldm_privacy.diffusion import per_sample
from ldm_privacy.errors import UserError
from ldm_privacy.metrics import auroc
from ldm_privacy.registry import ATTACKS
from ldm_privacy.types import Contribution, KeepMask, Latent, NoisePredictor, Statistic

NUM_ANGLES = 64


@ATTACKS.register("dime")
class Dime(Attack):
    """`cos(phi) B2 + sin(phi) V` with g = sqrt(abar_t) z0, sigma = sqrt(1 - abar_t), Rademacher z_k, k = 1 .. num_draws:

    e_k = epsilon(g + gamma sigma z_k, t), e_0 = epsilon(g, t), B2 = mean_k ||e_k||^2 and
    V = mean_k z_k . (e_k - e_0) / (gamma sigma), an estimate of the divergence of epsilon (Hutchinson). Both are sums over
    dimensions (the terms of V are signed), so both take a mask. At gamma = 1 and tan(phi) = -2 sigma the statistic is, up to
    scale and a constant, the denoising loss with a control variate; hence the signs of the defaults. 1 + num_draws queries
    per timestep.

    Source: DIME, 2026, in pixel space. gamma, phi, timestep and orientation are to be fitted on calibration samples:
    `fit_dime`.

    Args:
        gamma: Size of the displacement in units of sigma, > 0.
        phi: Angle between the two sums, in radians.
        num_draws: Displacements per (sample, timestep), at least 1.
        higher_means_member: Orientation.
    """

    noise_distribution = "rademacher"

    def __init__(
        self, *, gamma: float = 1.0, phi: float = -math.pi / 4, num_draws: int = 10, higher_means_member: bool = False
    ):
        if not gamma > 0:
            raise UserError(f"attack 'dime': gamma is {gamma}; it must be above 0.")
        self.gamma, self.phi = gamma, phi
        self.num_draws = check_num_draws("dime", num_draws)
        self.higher_means_member = higher_means_member

    def contributions(
        self, query: DenoiserQuery, latent: Latent, timesteps: list[int], noise: Tensor
    ) -> tuple[Contribution, Contribution]:
        """Terms of B2 (>= 0) and of V (signed), each (timesteps, *latent.shape). See `Attack.contributions`."""
        noise = noise.reshape(self.num_draws, len(timesteps), *latent.shape)
        abar = query.alphas_cumprod[timesteps]
        scaled = per_sample(abar.sqrt(), latent[None]) * latent[None]
        step = per_sample(self.gamma * (1 - abar).sqrt(), latent[None])
        centre = query(scaled, timesteps)
        displaced = query(scaled + step * noise, timesteps)
        return displaced.square().mean(0), (noise * (displaced - centre)).mean(0) / step

    def combine(self, *sums: Tensor) -> Statistic:
        """cos(phi) B2 + sin(phi) V."""
        energy, divergence = sums
        return math.cos(self.phi) * energy + math.sin(self.phi) * divergence

    def calibrated(self, sums: tuple[Tensor, ...], is_member: Tensor) -> "Dime":
        """phi and the orientation, chosen by AUROC at the best timestep; gamma, which needs other passes, stays."""
        return self.fitted(sums, is_member, range(len(sums[0]))).attack

    def fitted(
        self, sums: tuple[Tensor, ...], is_member: Tensor, timesteps: Sequence[int], *, num_angles: int = NUM_ANGLES
    ) -> "DimeFit":
        """The angle and timestep whose AUROC is farthest from a half.

        Angles are evenly spaced over half a turn in units of the standard deviations of B2 and V at that timestep; the
        orientation covers the other half. Arguments as in `Attack.calibrated`.
        """
        energy, divergence = sums
        angle = torch.arange(num_angles, dtype=torch.float64, device=energy.device) / num_angles * math.pi - math.pi / 2
        # (timesteps, angles): evenly spaced angles between the standardised sums, as angles between the sums themselves.
        phi = torch.atan2(angle.sin() * energy.std(1)[:, None], angle.cos() * divergence.std(1)[:, None])
        areas = auroc(phi.cos()[..., None] * energy[:, None] + phi.sin()[..., None] * divergence[:, None], is_member)
        row, column = divmod(int((areas - 0.5).abs().argmax()), num_angles)
        area, best = float(areas[row, column]), float(phi[row, column])
        attack = Dime(gamma=self.gamma, phi=best, num_draws=self.num_draws, higher_means_member=area > 0.5)
        return DimeFit(attack, timesteps[row], max(area, 1 - area))

    def num_queries(self, timesteps: Sequence[int]) -> int:
        """(1 + num_draws) * timesteps."""
        return (1 + self.num_draws) * len(timesteps)


class DimeFit(NamedTuple):
    """What was chosen: the attack with its settings, its timestep, and the AUROC there on the calibration samples."""

    attack: Dime
    timestep: int
    auroc: float


def fit_dime(
    predictor: NoisePredictor,
    latent: Latent,
    is_member: Tensor,
    timesteps: Sequence[int],
    *,
    keep_mask: KeepMask | None = None,
    gammas: Sequence[float] = (0.25, 0.5, 1.0, 2.0),
    num_angles: int = NUM_ANGLES,
    num_draws: int = 10,
    **options: Unpack[RunOptions],
) -> DimeFit:
    """DIME's gamma, phi, timestep and orientation, chosen by AUROC on calibration samples.

    Report it on other samples: the AUROC returned is the best of many. Angles as in `Dime.fitted`.

    Args:
        predictor, latent, timesteps, options: As in `attack_statistics`; so are errors.
        is_member: (batch,) bool; both members and held-out samples.
        keep_mask: Like `latent`, bool; all dimensions by default.
        gammas, num_angles: The candidates.
        num_draws: Of the attack.

    Returns:
        DimeFit. Cost: `len(gammas) * (1 + num_draws) * len(timesteps)` network passes per sample.
    """
    if not gammas:
        raise UserError("fit_dime: no gammas given; name at least one.")
    keep_masks = (torch.ones_like(latent, dtype=torch.bool) if keep_mask is None else keep_mask)[None]
    fits = []
    for gamma in gammas:
        attack = Dime(gamma=gamma, num_draws=num_draws)
        energy, divergence = masked_sums(attack, predictor, latent, timesteps, keep_masks, **options)
        sums = energy[0], divergence[0]
        fits.append(attack.fitted(sums, is_member.to(latent.device), timesteps, num_angles=num_angles))
    return max(fits, key=lambda fit: fit.auroc)
