"""Verdict on a whole data set: do the scores of a suspect set lie above those of samples known to be held out?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats
from torch import Tensor

from ldm_privacy.errors import UserError
from ldm_privacy.metrics.checks import MEND, check_finite, check_share
from ldm_privacy.randomness import derive_seed


@dataclass(frozen=True)
class WelchVerdict:
    """A one-sided Welch test of two means. Units are samples, or groups where groups were given."""

    p_value: float
    difference: float
    """Mean of the suspect units minus mean of the held-out ones."""
    lower: float
    """One-sided lower confidence bound of the difference: above 0 exactly where p_value < 1 - confidence."""
    effect_size: float
    """The difference in units of sqrt((suspect variance + held-out variance) / 2)."""
    num_suspect: int
    num_heldout: int


@dataclass(frozen=True)
class PValueAtSize:
    """P-values of random subsets of the suspect set of one size."""

    size: int
    median: float
    quantile_10: float
    quantile_90: float
    power: float
    """Share of the subsets whose p-value is below alpha."""


def welch_verdict(
    suspect_score: Tensor,
    heldout_score: Tensor,
    *,
    suspect_group: Tensor | None = None,
    heldout_group: Tensor | None = None,
    confidence: float = 0.95,
    widening: float = 1.0,
) -> WelchVerdict:
    """Tests "the suspect set scores no higher than held-out samples" (one-sided Welch t-test, unequal variances).

    `t = (mean_s - mean_h) / sqrt(var_s / n_s + var_h / n_h)`, degrees of freedom by Welch & Satterthwaite; the data-set
    inference of Dubinski et al. (CVPR 2025, arXiv 2411.12858). A small p-value says that the two sets differ, not why:
    it speaks of training only where suspect and held-out samples come from one distribution. One test per attack,
    mask and timestep: adjust their p-values together with `holm`.

    Args:
        suspect_score: (suspect samples,), higher = member.
        heldout_score: (held-out samples,) of the same attack, surely not trained on.
        suspect_group, heldout_group: A label of its group for each sample: the means of groups are tested.
        confidence: Of the lower bound.
        widening: Factor of the standard deviation of the difference: `choice_widening` where two halves chose for each other.

    Raises:
        UserError: scores that are not finite (sample named), fewer than 2 units on a side, a group on both sides, or
            scores that are constant on both sides.
    """
    check_share("confidence", confidence)
    suspect, heldout = _both_units(suspect_score, heldout_score, suspect_group, heldout_group)
    if _is_constant(suspect) and _is_constant(heldout):
        raise UserError("suspect and held-out scores are constant: without any spread there is nothing to test.")
    difference = float(suspect.mean() - heldout.mean())
    variances = suspect.var(ddof=1), heldout.var(ddof=1)
    widened = [widening**2 * variance for variance in variances]
    law = welch_law(difference, widened[0] / len(suspect), len(suspect), widened[1] / len(heldout), len(heldout))
    return WelchVerdict(
        p_value=float(stats.t.cdf(0.0, *law)),
        difference=difference,
        lower=float(stats.t.ppf(1.0 - confidence, *law)),
        effect_size=float(difference / np.sqrt(np.mean(variances))),
        num_suspect=len(suspect),
        num_heldout=len(heldout),
    )


def p_value_by_set_size(
    suspect_score: Tensor,
    heldout_score: Tensor,
    sizes: Sequence[int],
    *,
    suspect_group: Tensor | None = None,
    heldout_group: Tensor | None = None,
    alpha: float = 0.05,
    num_draws: int = 200,
    seed: int = 0,
    widening: float = 1.0,
) -> list[PValueAtSize]:
    """How the verdict sharpens with the size of the suspect set: Welch p-values of random subsets of it.

    Each draw orders the suspect units at random and tests the first n of them, for every n in `sizes`, against all
    held-out units. Subsets of one set overlap: at sizes close to the whole the spread is smaller than that of fresh
    sets, and at the whole there is none.

    Args:
        suspect_score, heldout_score, suspect_group, heldout_group: As in `welch_verdict`; so are errors, and constant
            held-out scores are one.
        sizes: Numbers of suspect units (groups where given), each from 2 to all of them.
        alpha: Level of the power.
        num_draws, seed: Of the random subsets of each size.
        widening: As in `welch_verdict`.

    Returns:
        One entry per size, in the order given. O(num_draws * suspect units).
    """
    check_share("alpha", alpha)
    suspect, heldout = _both_units(suspect_score, heldout_score, suspect_group, heldout_group)
    for wanted in sizes:
        if not 2 <= wanted <= len(suspect):
            raise UserError(f"set size {wanted}: choose sizes from 2 to {len(suspect)}, the size of the suspect set.")
    if _is_constant(heldout):
        raise UserError("held-out scores are constant: without any spread there is nothing to test.")
    generator = np.random.default_rng(derive_seed("set size", seed))
    size = np.asarray(sizes, dtype=np.int64)
    # Around the mean, so that sums of squares lose no digits to a large common level.
    centred = suspect - suspect.mean()
    total, squares = np.empty((num_draws, len(size))), np.empty((num_draws, len(size)))
    for index in range(num_draws):
        ordered = generator.permutation(centred)
        total[index], squares[index] = ordered.cumsum()[size - 1], (ordered**2).cumsum()[size - 1]
    variance = widening**2 * np.maximum(squares - total**2 / size, 0.0) / (size - 1)
    difference = total / size + (suspect.mean() - heldout.mean())
    law = welch_law(difference, variance / size, size, widening**2 * heldout.var(ddof=1) / len(heldout), len(heldout))
    p_value = stats.t.cdf(0.0, *law)
    low, median, high = np.quantile(p_value, [0.1, 0.5, 0.9], axis=0)
    power = (p_value < alpha).mean(axis=0)
    columns = zip(size.tolist(), median.tolist(), low.tolist(), high.tolist(), power.tolist())
    return [PValueAtSize(*column) for column in columns]


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values that hold for all tests together (Holm, Scandinavian Journal of Statistics 1979).

    With p_(1) <= ... <= p_(m): `adjusted_(i) = max over j <= i of min(1, (m - j + 1) p_(j))`. Rejecting where it is at most
    alpha errs in even one true null hypothesis with probability <= alpha, however the tests depend on each other.
    One for each p-value in [0, 1], in the order given.
    """
    p_value = np.asarray(p_values, dtype=np.float64)
    if not ((p_value >= 0) & (p_value <= 1)).all():
        raise ValueError(f"p-values must lie in [0, 1]: {list(p_values)}")
    order = np.argsort(p_value)
    adjusted = np.empty_like(p_value)
    adjusted[order] = np.maximum.accumulate(np.minimum(1.0, np.arange(len(p_value), 0, -1) * p_value[order]))
    return adjusted.tolist()


def welch_law(difference: Any, variance_a: Any, num_a: Any, variance_b: Any, num_b: Any) -> tuple[Any, Any, Any]:
    """The law that Welch's test (Biometrika 1947) gives the true difference of two means, as the arguments of `scipy.stats.t`.

    `stats.t.cdf(0, *law)` is the p-value of "not above 0", `stats.t.ppf(1 - confidence, *law)` the one-sided lower bound.

    Args:
        difference: Of the means; a number or an array, like the others.
        variance_a, variance_b: v, of the two *means*.
        num_a, num_b: n, units on each side, two at least.

    Returns:
        Degrees of freedom of Welch & Satterthwaite, `(v_a + v_b)^2 / (v_a^2 / (n_a - 1) + v_b^2 / (n_b - 1))`, the
        difference, and its standard deviation `sqrt(v_a + v_b)`.
    """
    variance = variance_a + variance_b
    freedom = variance**2 / (variance_a**2 / (num_a - 1) + variance_b**2 / (num_b - 1))
    return freedom, difference, np.sqrt(variance)


def _both_units(
    suspect_score: Tensor, heldout_score: Tensor, suspect_group: Tensor | None, heldout_group: Tensor | None
) -> tuple[np.ndarray, np.ndarray]:
    if suspect_group is not None and heldout_group is not None:
        shared = np.intersect1d(np.asarray(suspect_group), np.asarray(heldout_group))
        if shared.size:
            raise UserError(f"group {shared[0]} has suspect and held-out samples: split the data by group.")
    return _units("suspect", suspect_score, suspect_group), _units("held-out", heldout_score, heldout_group)


def _units(side: str, score: Tensor, group: Tensor | None) -> np.ndarray:
    """The independent numbers of one side: scores, or their means by group."""
    if score.ndim != 1:
        raise ValueError(f"{side} scores must be one row (samples,), not {tuple(score.shape)}")
    check_finite(score, f"membership score of {side} sample", MEND)
    value, name = score.detach().cpu().double().numpy(), "samples"
    if group is not None:
        if len(group) != len(value):
            raise UserError(f"{len(group)} group labels for {len(value)} {side} samples: pass one label per sample.")
        unit = np.unique(np.asarray(group), return_inverse=True)[1]
        value, name = np.bincount(unit, weights=value) / np.bincount(unit), "groups"
    if len(value) < 2:
        raise UserError(f"{len(value)} {side} {name}: a test needs at least 2 on each side.")
    return value


def _is_constant(value: np.ndarray) -> bool:
    # Means of groups of one constant differ in their last digits.
    return bool(np.ptp(value) <= 1e-13 * np.abs(value).max())
