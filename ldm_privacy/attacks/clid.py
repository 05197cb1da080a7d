"""CLiD: how much worse a sample is denoised without its condition than with it."""

import copy
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ldm_privacy.attacks.base import Attack
from ldm_privacy.attacks.query import DenoiserQuery
from ldm_privacy.errors import UserError
from ldm_privacy.metrics import auroc
from ldm_privacy.registry import ATTACKS
from ldm_privacy.types import Contribution, Latent, Statistic

NUM_WEIGHTS = 101
REDUCTIONS = {"null": ("null",), "thirds": ("without_1", "without_2", "without_3", "null")}
"""The views that stand for less of a condition, by reduction."""


class Mixing(NamedTuple):
    """The two parts of CLiD together: each minus its centre, over its spread, then (1 - weight) and weight of them."""

    weight: float = 0.5
    centre: tuple[float, float] = (0.0, 0.0)
    spread: tuple[float, float] = (1.0, 1.0)

    def __call__(self, likelihood: Tensor, discrepancy: Tensor) -> Tensor:
        """Of tensors of one shape, that shape; higher = member."""
        parts = (likelihood, discrepancy)
        first, second = ((part - centre) / spread for part, centre, spread in zip(parts, self.centre, self.spread))
        return first.lerp(second, self.weight)


@ATTACKS.register("clid")
class CLiD(Attack):
    """`(1 - a) robust(-L(c)) + a robust(mean_k L(c_k) - L(c))`, **larger = more member-like**; one number for all timesteps.

    L(c) is the mean over the attack's own timesteps (and the sum over the kept dimensions) of `(n - epsilon(z_t, t, c))^2`
    with the sample's own condition c, c_k one with less said: a model overfits images given their captions before it
    overfits images, so a member is denoised worse without. robust(x) = (x - median) / interquartile range. Median, range and
    a are those of calibration samples (`fitted_mixing`), so the statistic can be compared between samples, not between
    audits; before they are fitted it is -L(c) and the discrepancy in equal parts.

    Reported: strongly duplicated images rank *below* single ones, since without their caption they are denoised well too; the
    runs of docs/results/trajectories.md show the reverse.

    One normal noise per (sample, timestep), that of `loss`, the same for all conditions. `(1 + reductions) * timesteps`
    queries: 6 by default, 15 with thirds.

    Source: Zhai et al., "Membership Inference on Text-to-Image Diffusion Models via Conditional Likelihood Discrepancy",
    NeurIPS 2024, arXiv 2405.14800.

    Args:
        reduction: "null": no condition at all, right for labels and short captions. "thirds": the caption without its first,
            second and last third, and no condition.
        timesteps: Its own; those given to `attack_statistics` are not used.
    """

    higher_means_member = True
    num_draws = 1
    per_timestep = False

    def __init__(self, *, reduction: Literal["null", "thirds"] = "null", timesteps: Sequence[int] = (440, 450, 460)):
        if reduction not in REDUCTIONS:
            raise UserError(f"attack 'clid': reduction is {reduction!r}; it must be one of: {', '.join(REDUCTIONS)}.")
        self.reduction = reduction
        self.timesteps = list(timesteps)
        self._mixing = Mixing()

    @property
    def views(self) -> tuple[str, ...]:  # type: ignore[override]
        """The conditions with less said."""
        return REDUCTIONS[self.reduction]

    def contributions(
        self, query: DenoiserQuery, latent: Latent, timesteps: list[int], noise: Tensor
    ) -> tuple[Contribution, Contribution]:
        """Squared errors, mean over timesteps: with the own condition, and with the reduced ones (mean); (1, *latent.shape)."""

        def error(view: str) -> Tensor:
            return (noise - query.under(view).at_noise(latent, noise, timesteps)).square().mean(0, keepdim=True)

        reduced = torch.zeros_like(latent)[None]
        for view in self.views:
            reduced += error(view) / len(self.views)
        return error("own"), reduced

    def combine(self, *sums: Tensor) -> Statistic:
        """Both parts, mixed."""
        own, reduced = sums
        return self._mixing(-own, reduced - own)

    def calibrated(self, sums: tuple[Tensor, ...], is_member: Tensor) -> "CLiD":
        """The weight and both scalings, by `fitted_mixing`."""
        (own, reduced), fitted = (each[0] for each in sums), copy.copy(self)
        fitted._mixing = fitted_mixing(-own, reduced - own, is_member)
        return fitted

    def grid(self, timesteps: Sequence[int], num_train_timesteps: int) -> list[int]:
        """The attack's own timesteps, checked."""
        return super().grid(self.timesteps, num_train_timesteps)

    def num_queries(self, timesteps: Sequence[int]) -> int:
        """(1 + reductions) * own timesteps."""
        return (1 + len(self.views)) * len(self.timesteps)


def fitted_mixing(likelihood: Tensor, discrepancy: Tensor, is_member: Tensor) -> Mixing:
    """Scalings that make median 0 and interquartile range 1 of each part, and the weight of largest AUROC.

    Labels are looked at for the weight alone: of 0, .01, ..., 1, and where several are the best, the middle one. Where a part
    has no interquartile range its spread is 1 (as in scikit-learn's RobustScaler), so a score is always finite.

    Args:
        likelihood, discrepancy: (samples,), of calibration samples; higher = member.
        is_member: (samples,) bool; both members and held-out samples.
    """
    parts = torch.stack([likelihood, discrepancy]).double()
    lower, centre, upper = parts.quantile(parts.new_tensor([0.25, 0.5, 0.75]), dim=1)
    spread = upper - lower
    spread = torch.where(spread > 0, spread, 1.0)
    first, second = (parts - centre[:, None]) / spread[:, None]
    weights = torch.linspace(0, 1, NUM_WEIGHTS, dtype=torch.float64, device=parts.device)
    areas = auroc(first.lerp(second, weights[:, None]), is_member)
    best = (areas == areas.max()).nonzero()[:, 0]
    return Mixing(float(weights[best[len(best) // 2]]), tuple(centre.tolist()), tuple(spread.tolist()))
