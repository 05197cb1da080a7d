"""The numbers that one audit reports for one attack and mask."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ldm_privacy.errors import UserError
from ldm_privacy.metrics.attack_success_rate import attack_success_rate_interval
from ldm_privacy.metrics.auroc import auroc_interval
from ldm_privacy.metrics.checks import check_scores
from ldm_privacy.metrics.tpr_at_fpr import TprAtFpr, tnr_at_fnr, tpr_at_fpr_interval
from ldm_privacy.types import Estimate

_NUM_BOOTSTRAP_OF_A_MEAN = 200


@dataclass(frozen=True)
class MembershipMetrics:
    """How well membership scores tell members from held-out samples. Intervals are over samples, not over trainings."""

    auroc: Estimate
    asr: Estimate
    """Attack success rate; optimistic."""
    tpr_at_fpr: tuple[TprAtFpr, ...]
    """One per target FPR, in the order asked for; `is_resolvable` says whether the held-out samples suffice for it."""
    tnr_at_fnr: tuple[float, ...]
    """The same with the sides exchanged, one per target, for comparison with published tables only."""
    num_members: int
    num_heldout: int

    @property
    def tpr_at_1fpr(self) -> TprAtFpr:
        """TPR at 1 % FPR; at the first target where 1 % is not among them (its `target_fpr` says which)."""
        return next((each for each in self.tpr_at_fpr if each.target_fpr == 0.01), self.tpr_at_fpr[0])


def membership_metrics(
    score: Tensor,
    is_member: Tensor,
    *,
    confidence: float = 0.95,
    group: Tensor | None = None,
    num_bootstrap: int = 1000,
    seed: int = 0,
    target_fprs: Sequence[float] = (0.01, 0.001),
) -> MembershipMetrics:
    """AUROC, attack success rate and TPR at target FPRs, each with its interval, and the reversed TNRs.

    Args:
        score, is_member, confidence, group, seed: As in `ldm_privacy.metrics`; so are errors.
        num_bootstrap: Resamples of each bootstrap; of ASR's, which only takes a mean, at most 200.
        target_fprs: The FPRs of the TPRs, and the FNRs of the reversed TNRs; at least one.
    """
    if not target_fprs:
        raise UserError("target_fprs is empty: name at least one false positive rate, such as 0.01.")
    score, is_member = check_scores(score, is_member)
    score, is_member = score.cpu(), is_member.cpu()
    options: dict[str, Any] = {"confidence": confidence, "group": group, "num_bootstrap": num_bootstrap, "seed": seed}
    of_a_mean = options | {"num_bootstrap": min(num_bootstrap, _NUM_BOOTSTRAP_OF_A_MEAN)}
    return MembershipMetrics(
        auroc=auroc_interval(score, is_member, **options),
        asr=attack_success_rate_interval(score, is_member, **of_a_mean),
        tpr_at_fpr=tuple(tpr_at_fpr_interval(score, is_member, target, **options) for target in target_fprs),
        tnr_at_fnr=tuple(float(tnr_at_fnr(score, is_member, target)) for target in target_fprs),
        num_members=int(is_member.sum()),
        num_heldout=int((~is_member).sum()),
    )
