"""Numbers of two halves of the samples that chose for each other: every sample reports, and none had a say in its own rule.

Each half chooses a candidate (a timestep, a keep fraction) by its AUROC there, and fits what is to be fitted; the *other* half
reports it, and a number is the mean of the two.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from scipy import special, stats

from ldm_privacy.metrics.auroc import auroc_interval
from ldm_privacy.metrics.auroc_difference import PairedDifference, auroc_difference, check_alternative
from ldm_privacy.metrics.checks import check_share
from ldm_privacy.metrics.choice_reach import choice_reach
from ldm_privacy.metrics.half import Half, Part
from ldm_privacy.metrics.tpr_at_threshold import tpr_at_threshold
from ldm_privacy.types import Estimate


@dataclass(frozen=True)
class CrossfitRates:
    """TPR and realised FPR of the rule "member where score > the threshold of the sample's half"."""

    tpr: Estimate
    fpr: Estimate
    thresholds: tuple[float, ...]
    """One a half."""


def crossfit_auroc(halves: Sequence[Half], *, confidence: float = 0.95, num_bootstrap: int = 1000, seed: int = 0) -> Estimate:
    """AUROC of what was chosen crosswise: the mean of the halves' AUROCs, with an interval that carries the choice.

    One half: `auroc_interval`. Two: on the logit scale around the mean, `choice_reach` times `sqrt(v_A + v_B) / 2` to either
    side, v by DeLong with whole groups summed.

    Where a half shows no spread (`interval_without_spread`), or has a single sample (or group) on a side: the mean of the
    bounds of both halves at confidence `1 - (1 - confidence) / 2`, which hold together however they depend on each other.

    Args:
        halves: One or two; the same candidates in the same order.
        confidence, num_bootstrap, seed: As in `ldm_privacy.metrics`; so are errors. Resampled are groups where a half stands
            alone; `seed` is that of `choice_reach` too.
    """
    check_share("confidence", confidence)
    parts = [Part.of([half]) for half in _checked(halves)]
    if len(halves) == 1 or any(part.is_degenerate for part in parts):
        shared: dict[str, Any] = {
            "confidence": 1.0 - (1.0 - confidence) / len(halves),
            "num_bootstrap": num_bootstrap,
            "seed": seed,
        }
        each = [auroc_interval(half.reported, half.is_member, group=half.group, **shared) for half in halves]
        return Estimate(*np.mean([(one.value, one.lower, one.upper) for one in each], axis=0).tolist())
    value = (parts[0].value + parts[1].value) / 2
    reach = np.array(choice_reach([halves], (1.0 - confidence) / 2, seed=seed)) * [-1, 1]
    deviation = np.sqrt(parts[0].variance + parts[1].variance) / 2
    lower, upper = special.expit(special.logit(value) + reach * deviation / (value * (1.0 - value)))
    return Estimate(value, float(lower), float(upper))


def crossfit_difference(
    a: Sequence[Half],
    b: Sequence[Half],
    *,
    confidence: float = 0.95,
    alternative: Literal["two-sided", "greater"] = "two-sided",
) -> PairedDifference:
    """AUROC(a) - AUROC(b), both chosen crosswise on the same halves: the mean of the halves' paired differences.

    One half: `auroc_difference`. Two: value +- `choice_reach` times half the root of the summed paired DeLong variances; a and
    b choose independently, each among its own candidates. The p-value is the normal one of the difference in units of its
    deviation times (reach / normal quantile), so that it is below the tail exactly where the bound leaves 0 out.

    Where on a half both differ by the same amount for all samples, or a side has one sample (or group): mean of the bounds at
    confidence `1 - (1 - confidence) / 2`, and twice the smaller p-value.

    Args:
        a, b: One or two halves each, with the same samples in the same order. Errors are those of `auroc_difference`.
        confidence, alternative: As in `auroc_difference`.
    """
    check_share("confidence", confidence)
    is_two_sided, pairs = check_alternative(alternative), list(zip(_checked(a), _checked(b), strict=True))
    parts, tail = [Part.of(pair) for pair in pairs], (1.0 - confidence) / (2 if is_two_sided else 1)
    if len(pairs) == 1 or any(part.is_degenerate for part in parts):
        options: dict[str, Any] = {"confidence": 1.0 - (1.0 - confidence) / len(pairs), "alternative": alternative}
        each = [auroc_difference(x.reported, y.reported, x.is_member, group=x.group, **options) for x, y in pairs]
        value, lower, upper = np.mean([(one.value, one.lower, one.upper) for one in each], axis=0).tolist()
        return PairedDifference(value, lower, upper, min(1.0, len(each) * min(one.p_value for one in each)))
    value, deviation = (parts[0].value + parts[1].value) / 2, float(np.sqrt(parts[0].variance + parts[1].variance)) / 2
    below, above = choice_reach([a, b], tail)
    lower, upper = max(-1.0, value - below * deviation), min(1.0, value + above * deviation)
    normal, reach = float(stats.norm.isf(tail)), below if value > 0 else above
    ratio = value / deviation * (normal / reach if normal > 0 else 1.0) if deviation else 0.0
    p_value = float(2 * stats.norm.sf(abs(ratio)) if is_two_sided else stats.norm.sf(ratio)) if deviation else 1.0
    return PairedDifference(value, lower, upper if is_two_sided else 1.0, p_value)


def crossfit_rates(
    halves: Sequence[Half],
    thresholds: Sequence[float],
    *,
    confidence: float = 0.95,
    num_bootstrap: int = 1000,
    seed: int = 0,
) -> CrossfitRates:
    """TPR and realised FPR of all samples, each half at the threshold that the other carried over (`threshold_at_fpr`).

    `tpr_at_threshold` of both halves together: a sum of two binomials is no wider than one binomial of their mean share
    (Hoeffding, Annals of Mathematical Statistics 1956), so Clopper-Pearson holds for the mean of the two rates, by samples.
    What the choice adds is less than that interval has to spare (docs/results/coverage.md).

    Args:
        halves: One or two; no group has samples in both.
        thresholds: One a half, in units of its reported scores.
        confidence, num_bootstrap, seed: As in `ldm_privacy.metrics`; so are errors.
    """
    flagged = [half.reported > threshold for half, threshold in zip(_checked(halves), thresholds, strict=True)]
    groups = [torch.as_tensor(half.group) for half in halves if half.group is not None]
    rates = tpr_at_threshold(
        torch.cat(flagged).double(),
        torch.cat([half.is_member for half in halves]),
        0.5,
        confidence=confidence,
        group=torch.cat(groups) if groups else None,
        num_bootstrap=num_bootstrap,
        seed=seed,
    )
    return CrossfitRates(rates.tpr, rates.fpr, tuple(thresholds))


def _checked(halves: Sequence[Half]) -> Sequence[Half]:
    if len(halves) not in (1, 2) or len({len(half.candidates) for half in halves}) != 1:
        raise ValueError("one half or two, with the same candidates in the same order")
    return halves
