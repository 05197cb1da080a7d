"""The rates at a threshold that was fixed beforehand, on other samples."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ldm_privacy.metrics.checks import check_scores, check_share
from ldm_privacy.metrics.resampling import bootstrap_generator, clopper_pearson, percentiles, sides_of
from ldm_privacy.types import Estimate


@dataclass(frozen=True)
class RatesAtThreshold:
    """TPR and realised FPR of the rule "member where score > threshold"."""

    tpr: Estimate
    fpr: Estimate
    threshold: float


def tpr_at_threshold(
    score: Tensor,
    is_member: Tensor,
    threshold: float,
    *,
    confidence: float = 0.95,
    group: Tensor | None = None,
    num_bootstrap: int = 1000,
    seed: int = 0,
) -> RatesAtThreshold:
    """TPR and realised FPR at a threshold carried over from other samples (`threshold_at_fpr` there).

    Clopper-Pearson intervals: exact, because neither side had a say in the threshold. At a threshold chosen on these
    very samples they would be far too narrow for the TPR at a target FPR; `tpr_at_fpr_interval` is right there.
    With `group`, percentiles of a bootstrap over whole groups instead, widened to the exact interval of as many samples
    as there are groups. Arguments and errors: see `ldm_privacy.metrics`.
    """
    check_share("confidence", confidence)
    score, is_member = check_scores(score, is_member)
    sides = sides_of(is_member, group)
    rates = {}
    for name, on_side, side in (("tpr", is_member, sides.member), ("fpr", ~is_member, sides.heldout)):
        flagged = (score[on_side] > threshold).cpu().numpy()
        rate = clopper_pearson(int(flagged.sum()), len(flagged), confidence=confidence)
        if group is not None:
            generator = bootstrap_generator(name, seed)
            counts = np.stack([side.draw(generator) for _ in range(num_bootstrap)])
            lower, upper = percentiles(counts @ flagged / counts.sum(axis=1), confidence)
            exact = clopper_pearson(rate.value * side.num_units, side.num_units, confidence=confidence)
            rate = Estimate(rate.value, min(lower, exact.lower), max(upper, exact.upper))
        rates[name] = rate
    return RatesAtThreshold(rates["tpr"], rates["fpr"], threshold)
