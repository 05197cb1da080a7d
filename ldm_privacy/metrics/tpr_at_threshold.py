"""The rates at a threshold that was fixed beforehand, on other samples."""

from dataclasses import dataclass

from torch import Tensor

from ldm_privacy.metrics.checks import check_scores, check_share
from ldm_privacy.metrics.resampling import clopper_pearson
from ldm_privacy.types import Estimate


@dataclass(frozen=True)
class RatesAtThreshold:
    """TPR and realised FPR of the rule "member where score > threshold"."""

    tpr: Estimate
    fpr: Estimate
    threshold: float


def tpr_at_threshold(score: Tensor, is_member: Tensor, threshold: float, *, confidence: float = 0.95) -> RatesAtThreshold:
    """TPR and realised FPR at a threshold carried over from a calibration half (`threshold_at_fpr` there).

    Clopper-Pearson intervals: exact, because neither side had a say in the threshold. At a threshold chosen on these
    very samples they would be far too narrow for the TPR at a target FPR; `tpr_at_fpr_interval` is right there.

    Args:
        score: (samples,), higher = member.
        is_member: (samples,) bool.
        threshold: Chosen on other samples.
        confidence: Least coverage of each interval.

    Raises:
        UserError: see `check_scores`.
    """
    check_share("confidence", confidence)
    score, is_member = check_scores(score, is_member)
    is_flagged = score > threshold
    num_members, num_heldout = int(is_member.sum()), int((~is_member).sum())
    return RatesAtThreshold(
        tpr=clopper_pearson(int(is_flagged[is_member].sum()), num_members, confidence=confidence),
        fpr=clopper_pearson(int(is_flagged[~is_member].sum()), num_heldout, confidence=confidence),
        threshold=threshold,
    )
