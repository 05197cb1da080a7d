"""Placeholder."""

import math
from dataclasses import dataclass

from scipy import stats
from torch import Tensor

from ldm_privacy.metrics.auroc import auroc_interval
from ldm_privacy.metrics.auroc_difference import PairedDifference, auroc_difference
from ldm_privacy.metrics.resampling import clopper_pearson
from ldm_privacy.metrics.tpr_at_threshold import RatesAtThreshold, tpr_at_threshold
from ldm_privacy.types import Estimate


@dataclass(frozen=True)
class Half:
    score: Tensor
    is_member: Tensor
    group: Tensor | None = None


def crossfit_auroc(halves, chosen, *, num_fitted=0, confidence=0.95, num_bootstrap=1000, seed=0) -> Estimate:
    parts = [
        auroc_interval(
            half.score[at], half.is_member, confidence=confidence, group=half.group, num_bootstrap=num_bootstrap, seed=seed
        )
        for half, at in zip(halves, chosen)
    ]
    if len(parts) == 1:
        return parts[0]
    value = sum(each.value for each in parts) / 2
    half = math.hypot(*(each.upper - each.lower for each in parts)) / 4
    return Estimate(value, max(0.0, value - half), min(1.0, value + half))


def crossfit_difference(halves, *, confidence=0.95, alternative="two-sided", num_fitted=0) -> PairedDifference:
    parts = [
        auroc_difference(a, b, is_member, confidence=confidence, alternative=alternative, group=group)
        for a, b, is_member, group in halves
    ]
    if len(parts) == 1:
        return parts[0]
    value = sum(each.value for each in parts) / 2
    half = math.hypot(*(each.value - each.lower for each in parts)) / 2
    z = half / stats.norm.isf((1 - confidence) / (2 if alternative == "two-sided" else 1))
    p = (
        1.0
        if z == 0
        else float(stats.norm.sf(value / z))
        if alternative == "greater"
        else float(2 * stats.norm.sf(abs(value) / z))
    )
    return PairedDifference(value, max(-1.0, value - half), 1.0 if alternative == "greater" else min(1.0, value + half), p)


def crossfit_rates(halves, thresholds, *, confidence=0.95, num_bootstrap=1000, seed=0) -> RatesAtThreshold:
    if len(halves) == 1:
        return tpr_at_threshold(
            halves[0].score[0],
            halves[0].is_member,
            thresholds[0],
            confidence=confidence,
            num_bootstrap=num_bootstrap,
            seed=seed,
            group=halves[0].group,
        )
    rates = []
    for member in (True, False):
        hits = n = 0
        for half, threshold in zip(halves, thresholds):
            side = half.score[0][half.is_member == member]
            hits += int((side > threshold).sum())
            n += len(side)
        rates.append(clopper_pearson(hits, n, confidence=confidence))
    return RatesAtThreshold(rates[0], rates[1], thresholds[0])
