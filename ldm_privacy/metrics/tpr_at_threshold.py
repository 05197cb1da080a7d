"""The rates at a threshold that was fixed beforehand, on other samples."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ldm_privacy.metrics.checks import check_scores, check_share
from ldm_privacy.metrics.resampling import SideResampler, bootstrap_generator, clopper_pearson, side_resamplers
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
    """TPR and realised FPR at a threshold carried over from a calibration half (`threshold_at_fpr` there).

    Clopper-Pearson intervals: exact, because neither side had a say in the threshold. At a threshold chosen on these
    very samples they would be far too narrow for the TPR at a target FPR; `tpr_at_fpr_interval` is right there.
    With `group`, percentiles of a bootstrap over whole groups instead, widened to the exact interval of as many samples
    as there are groups.

    Args:
        score: (samples,), higher = member.
        is_member: (samples,) bool.
        threshold: Chosen on other samples.
        confidence: Least coverage of each interval.
        group: (samples,) labels; no group on both sides.
        num_bootstrap, seed: Of the group bootstrap.

    Raises:
        UserError: see `check_scores`; a group on both sides.
    """
    check_share("confidence", confidence)
    score, is_member = check_scores(score, is_member)
    is_flagged = (score > threshold).cpu().numpy()
    is_member_cpu = is_member.cpu().numpy()
    sides = zip(("tpr", "fpr"), (is_member_cpu, ~is_member_cpu), side_resamplers(is_member, group))
    rates = {}
    for name, side, resampler in sides:
        flagged = is_flagged[side]
        rates[name] = clopper_pearson(int(flagged.sum()), len(flagged), confidence=confidence)
        if group is not None:
            rates[name] = _group_interval(flagged, resampler, confidence, num_bootstrap, bootstrap_generator(name, seed))
    return RatesAtThreshold(rates["tpr"], rates["fpr"], threshold)


def _group_interval(
    flagged: np.ndarray, side: SideResampler, confidence: float, num_bootstrap: int, generator: np.random.Generator
) -> Estimate:
    counts = np.stack([side.draw(generator) for _ in range(num_bootstrap)])
    share = counts @ flagged / counts.sum(axis=1)
    lower, upper = np.quantile(share, [(1 - confidence) / 2, (1 + confidence) / 2])
    value = float(flagged.mean())
    exact = clopper_pearson(value * side.num_units, side.num_units, confidence=confidence)
    return Estimate(value, min(float(lower), exact.lower), max(float(upper), exact.upper))
