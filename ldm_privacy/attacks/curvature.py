"""Curvature: how much steeper the density is with the condition than without."""

from collections.abc import Sequence

from torch import Tensor

from ldm_privacy.attacks.base import Attack
from ldm_privacy.attacks.query import DenoiserQuery
from ldm_privacy.registry import ATTACKS
from ldm_privacy.types import Contribution, Latent


@ATTACKS.register("curvature")
class Curvature(Attack):
    """`(g_c - g_null)^2` with `g = d/dz 1/2 ||epsilon(z_t, t)||^2 = J^T epsilon`, **larger = more member-like**.

    J is the derivative of epsilon by the state z_t, up to a factor the Hessian of the log density, so g is large where the
    density is steep and curved. A mask chooses among the dimensions of g_c - g_null; the norm inside is always over all.
    Published at pure noise, like the branch gap (`branch_gap`): AUROC .976 where that has .962 and its change over the steps
    (`dsm`) .975, on 500 + 500 prompts of Stable Diffusion 1.5. 0 where the condition is ignored.

    One normal noise per (sample, timestep), the same for both conditions. Two queries per timestep, each of them a pass
    forward and one back, in passes of fewer rows (`DenoiserQuery.pulled_back`).

    Source: "Early Detection of Memorization in Diffusion Models", 2026, metric 2 (Hessian difference), after Jeon et al., ICML
    2025, arXiv 2412.04140.
    """

    higher_means_member = True
    num_draws = 1
    log_scale = True
    views = ("null",)

    def contributions(self, query: DenoiserQuery, latent: Latent, timesteps: list[int], noise: Tensor) -> Contribution:
        """(timesteps, *latent.shape), >= 0. See `Attack.contributions`."""
        state = query.noisy(latent, noise, timesteps)
        return (query.pulled_back(state, timesteps) - query.under("null").pulled_back(state, timesteps)).square()

    def num_queries(self, timesteps: Sequence[int]) -> int:
        """Two per timestep, each of them forward and back."""
        return 2 * len(timesteps)
