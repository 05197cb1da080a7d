"""DIME: the energy and the divergence of the predicted noise around the scaled latent."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ldm_privacy.attacks.base import Attack, check_num_draws
from ldm_privacy.attacks.query import DenoiserQuery
from ldm_privacy.attacks.runner import masked_sums
from ldm_privacy.diffusion import per_sample
from ldm_privacy.errors import UserError
from ldm_privacy.metrics import auroc
from ldm_privacy.registry import ATTACKS
from ldm_privacy.types import Condition, Contribution, KeepMask, Latent, NoisePredictor, Statistic

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
        num_draws: Displacements per (sample, timestep).
        higher_means_member: Orientation.

    Raises:
        UserError: gamma not above 0, num_draws below 1.
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
        energy, divergence = sums
        area, _, phi = _best_angle(energy, divergence, is_member, NUM_ANGLES)
        return Dime(gamma=self.gamma, phi=phi, num_draws=self.num_draws, higher_means_member=area > 0.5)

    def num_queries(self, timesteps: Sequence[int]) -> int:
        """(1 + num_draws) * timesteps."""
        return (1 + self.num_draws) * len(timesteps)


class DimeFit(NamedTuple):
    """What `fit_dime` chose: the attack with its settings, its timestep, and the AUROC there on the calibration samples."""

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
    condition: Condition | None = None,
    sample_index: Tensor | None = None,
    seed: int = 0,
    memory_budget: int | None = None,
) -> DimeFit:
    """DIME's gamma, phi, timestep and orientation, chosen by AUROC on calibration samples.

    Report it on other samples: the AUROC returned is the best of many. Angles are evenly spaced over half a turn in units of
    the standard deviations of B2 and V at that timestep; the orientation covers the other half.

    Args:
        predictor, latent, timesteps, condition, sample_index, seed, memory_budget: As in `attack_statistics`.
        is_member: (batch,) bool.
        keep_mask: Like `latent`, bool; all dimensions by default.
        gammas, num_angles: The candidates.
        num_draws: Of the attack.

    Returns:
        DimeFit. Cost: `len(gammas) * (1 + num_draws) * len(timesteps)` network passes per sample.

    Raises:
        UserError: As in `attack_statistics`; members or held-out samples are missing.
    """
    keep_masks = (torch.ones_like(latent, dtype=torch.bool) if keep_mask is None else keep_mask)[None]
    is_member = is_member.to(latent.device)
    best: DimeFit | None = None
    for gamma in gammas:
        energy, divergence = (
            sums[0]
            for sums in masked_sums(
                Dime(gamma=gamma, num_draws=num_draws),
                predictor,
                latent,
                timesteps,
                keep_masks,
                condition=condition,
                sample_index=sample_index,
                seed=seed,
                memory_budget=memory_budget,
            )
        )
        value, row, phi = _best_angle(energy, divergence, is_member, num_angles)
        if best is None or max(value, 1 - value) > best.auroc:
            attack = Dime(gamma=gamma, phi=phi, num_draws=num_draws, higher_means_member=value > 0.5)
            best = DimeFit(attack, timesteps[row], max(value, 1 - value))
    if best is None:
        raise UserError("fit_dime: no gammas given; name at least one.")
    return best


def _best_angle(energy: Tensor, divergence: Tensor, is_member: Tensor, num_angles: int) -> tuple[float, int, float]:
    """(AUROC, place of the timestep, phi) whose AUROC is farthest from a half; sums are (timesteps, samples)."""
    angle = torch.arange(num_angles, dtype=torch.float64, device=energy.device) / num_angles * math.pi - math.pi / 2
    # (timesteps, angles): evenly spaced angles between the standardised sums, as angles between the sums themselves.
    phi = torch.atan2(angle.sin() * energy.std(1)[:, None], angle.cos() * divergence.std(1)[:, None])
    statistic = phi.cos()[..., None] * energy[:, None] + phi.sin()[..., None] * divergence[:, None]
    area = auroc(statistic, is_member)
    row, column = divmod(int((area - 0.5).abs().argmax()), num_angles)
    return float(area[row, column]), row, float(phi[row, column])
