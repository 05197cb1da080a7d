"""A limit on the share of members that are found at a small false positive rate."""

from dataclasses import KW_ONLY, dataclass

from ldm_privacy.evidence.limits.auroc import Who, counts_of, named, rows_of
from ldm_privacy.evidence.limits.limit import Found, Limit, Reading


@dataclass(frozen=True)
class TprLimit(Limit):
    """The upper bound of a TPR@FPR is at most `most`.

    Args:
        most: In (target_fpr, 1): guessing finds `target_fpr` of the members.
        target_fpr: One of those that the audit reports.
        who: Can have the scores.
    """

    most: float
    _: KW_ONLY
    target_fpr: float
    who: Who = "insider"

    @property
    def name(self) -> str:
        return f"gate.tpr.{self.target_fpr:g}"

    @property
    def quantity(self) -> str:
        return f"TPR@{100 * self.target_fpr:g}%FPR"

    def readings(self, found: Found) -> list[Reading]:
        return [
            Reading(named(found, row.key), each)
            for row in rows_of(found, self.who)
            for each in row.metrics.tpr_at_fpr
            if each.target_fpr == self.target_fpr
        ]

    def counts(self, found: Found) -> dict[str, int]:
        return counts_of(found)
