"""A limit on the share of members that what the verdict rests on, or a named attack, finds at a small false positive rate."""

from dataclasses import KW_ONLY, dataclass

from ldm_privacy.audit.row import AuditRow
from ldm_privacy.evidence.limits.auroc import Who, counts_of, held_rows, left_out, named
from ldm_privacy.evidence.limits.limit import Found, Limit, Reading


@dataclass(frozen=True)
class TprLimit(Limit):
    """The upper bound of a TPR@FPR is at most `most`.

    Args:
        most: In (target_fpr, 1): guessing finds `target_fpr` of the members.
        target_fpr: One of those that the audit reports.
        who: Can have the scores; where no attack is named.
        attack: A label, whose masks are all held to it, or one with its mask, as "sima/all".
    """

    most: float
    _: KW_ONLY
    target_fpr: float
    who: Who = "insider"
    attack: str | None = None

    @property
    def name(self) -> str:
        of = "tpr" if self.attack is None else f"attacks_tpr.{self.attack}"
        return f"gate.{of}.{self.target_fpr:g}"

    @property
    def quantity(self) -> str:
        return f"TPR@{100 * self.target_fpr:g}%FPR"

    def rows(self, found: Found) -> list[AuditRow]:
        """Those that it holds."""
        return held_rows(found, self.who, self.attack)

    def readings(self, found: Found) -> list[Reading]:
        return [
            Reading(named(found, row.key), each)
            for row in self.rows(found)
            for each in row.metrics.tpr_at_fpr
            if each.target_fpr == self.target_fpr
        ]

    def counts(self, found: Found) -> dict[str, int]:
        return counts_of(found)

    def missing(self) -> str:
        return left_out(self.attack) if self.attack is not None else super().missing()
