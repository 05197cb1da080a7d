"""Limits that hold every attack of an audit: who tests must not choose the weakest."""

from dataclasses import dataclass

from ldm_privacy.audit.row import AuditRow
from ldm_privacy.evidence.limits.auroc import AurocLimit, rows_of
from ldm_privacy.evidence.limits.limit import Found, Reading
from ldm_privacy.evidence.limits.tpr import TprLimit


@dataclass(frozen=True)
class EveryAuroc(AurocLimit):
    """Every attack without a mask, plain and calibrated, and what the verdict rests on."""

    def rows(self, found: Found) -> list[AuditRow]:
        return every_row(found)


@dataclass(frozen=True)
class EveryTpr(TprLimit):
    """The same scores; nothing where the held-out images are too few for one false positive at that rate."""

    def rows(self, found: Found) -> list[AuditRow]:
        return every_row(found)

    def readings(self, found: Found) -> list[Reading]:
        return super().readings(found) if self.counts(found)["held-out images"] * self.target_fpr >= 1 else []

    def missing(self) -> str:
        return (
            f"a false positive rate of {self.target_fpr:g} is none of audit.target_fprs, or fewer than "
            f"{1 / self.target_fpr:g} held-out images can't show it"
        )


def every_row(found: Found) -> list[AuditRow]:
    """Of an audit: the primary attack as both persons have it, then every attack without a mask."""
    keys = dict.fromkeys([*(row.key for row in rows_of(found, "insider")), *found.report.unmasked])
    return [found.report.row(key) for key in keys]
