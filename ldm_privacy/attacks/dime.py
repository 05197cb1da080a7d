"""DIME: the energy and the divergence of the predicted noise around the scaled latent."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ldm_privacy.attacks.base import Attack, check_num_draws
from ldm_privacy.attacks.query import DenoiserQuery
from ldm_privacy.diffusion import per_sample
from ldm_privacy.errors import UserError
from ldm_privacy.metrics import auroc
from ldm_privacy.registry import ATTACKS
from ldm_privacy.types import Contribution, Latent, Statistic

NUM_ANGLES = 64


@ATTACKS.register("dime")
class Dime(Attack):
    """`cos(phi) B2 + sin(phi) V` with g = sqrt(abar_t) z0, sigma = sqrt(1 - abar_t), Rademacher z_k, k = 1 .. num_draws:

    e_k = epsilon(g + gamma sigma z_k, t), e_0 = epsilon(g, t), B2 = mean_k ||e_k||^2 and
    V = mean_k z_k . (e_k - e_0) / (gamma sigma), an estimate of the divergence of epsilon (Hutchinson). Both are sums over
    dimensions (the terms of V are signed), so both take a mask. At gamma = 1 and tan(phi) = -2 sigma the statistic is, up to
    scale and a constant, the denoising loss with a control variate; hence the signs of the defaults. 1 + num_draws queries
    per timestep.

    Source: DIME, 2026, in pixel space. An audit fits phi, timestep and orientation (`calibrated`); gammas are attacks of their
    own.

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
        """phi and the orientation, chosen by AUROC at the best timestep; gamma, which needs other passes, stays.

        Angles are evenly spaced over half a turn in units of the standard deviations of B2 and V at that timestep; the
        orientation covers the other half.
        """
        energy, divergence = sums
        angle = torch.arange(NUM_ANGLES, dtype=torch.float64, device=energy.device) / NUM_ANGLES * math.pi - math.pi / 2
        # (timesteps, angles): evenly spaced angles between the standardised sums, as angles between the sums themselves.
        phi = torch.atan2(angle.sin() * energy.std(1)[:, None], angle.cos() * divergence.std(1)[:, None])
        areas = auroc(phi.cos()[..., None] * energy[:, None] + phi.sin()[..., None] * divergence[:, None], is_member)
        best = int((areas - 0.5).abs().argmax())
        is_higher = float(areas.flatten()[best]) > 0.5
        return Dime(gamma=self.gamma, phi=float(phi.flatten()[best]), num_draws=self.num_draws, higher_means_member=is_higher)

    def num_queries(self, timesteps: Sequence[int]) -> int:
        """(1 + num_draws) * timesteps."""
        return (1 + self.num_draws) * len(timesteps)
