"""The numbers that one audit reports for one attack and mask."""

from dataclasses import dataclass

from torch import Tensor

from ldm_privacy.metrics.attack_success_rate import attack_success_rate_interval
from ldm_privacy.metrics.auroc import auroc_interval
from ldm_privacy.metrics.checks import check_scores
from ldm_privacy.metrics.tpr_at_fpr import TprAtFpr, tnr_at_fnr, tpr_at_fpr_interval
from ldm_privacy.types import Estimate


@dataclass(frozen=True)
class MembershipMetrics:
    """How well membership scores tell members from held-out samples. Intervals are over samples, not over trainings."""

    auroc: Estimate
    asr: Estimate
    """Attack success rate; optimistic."""
    tpr_at_1fpr: TprAtFpr
    """At 1 % FPR, or at `tpr_at_1fpr.target_fpr` where the caller asked for another."""
    tnr_at_1fnr: float
    """The same with the sides exchanged, for comparison with published tables only."""
    num_members: int
    num_heldout: int


def membership_metrics(
    score: Tensor,
    is_member: Tensor,
    *,
    confidence: float = 0.95,
    group: Tensor | None = None,
    num_bootstrap: int = 1000,
    seed: int = 0,
    target_fpr: float = 0.01,
) -> MembershipMetrics:
    """AUROC, attack success rate and TPR at a target FPR, each with its interval, and the reversed TNR.

    Args:
        score: (samples,), higher = member.
        is_member: (samples,) bool.
        confidence: Nominal coverage of each interval.
        group: (samples,) labels; intervals resample whole groups.
        num_bootstrap: Resamples of each bootstrap.
        seed: Seed of the bootstraps: same seed, same bounds.
        target_fpr: The FPR of the TPR, and the FNR of the reversed TNR.

    Raises:
        UserError: see `check_scores`; a group on both sides; a share outside (0, 1).
    """
    score, is_member = check_scores(score, is_member)
    score, is_member = score.cpu(), is_member.cpu()
    num_members = int(is_member.sum())
    return MembershipMetrics(
        auroc=auroc_interval(score, is_member, confidence=confidence, group=group, num_bootstrap=num_bootstrap, seed=seed),
        asr=attack_success_rate_interval(
            score, is_member, confidence=confidence, group=group, num_bootstrap=num_bootstrap, seed=seed
        ),
        tpr_at_1fpr=tpr_at_fpr_interval(
            score, is_member, target_fpr, confidence=confidence, group=group, num_bootstrap=num_bootstrap, seed=seed
        ),
        tnr_at_1fnr=float(tnr_at_fnr(score, is_member, target_fpr)),
        num_members=num_members,
        num_heldout=len(is_member) - num_members,
    )
