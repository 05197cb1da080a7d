"""Limits that hold every attack of an audit: who tests must not choose the weakest, nor be condemned by the luckiest.

What the verdict rests on was named beforehand and is held as the gate holds it. Every other attack without a mask must pass as
well, but the worst of them is chosen by its result: it fails only where its lower bound is above the limit, and is undecided
where its estimate alone is.
"""

from dataclasses import dataclass

from ldm_privacy.audit.row import AuditRow
from ldm_privacy.evidence.limits.auroc import AurocLimit, held_rows
from ldm_privacy.evidence.limits.limit import Decision, Found, Limit, Reading
from ldm_privacy.evidence.limits.tpr import TprLimit
from ldm_privacy.types import Estimate


@dataclass(frozen=True)
class ShownTpr(TprLimit):
    """Nothing is read where the held-out images are too few for one false positive at that rate."""

    def readings(self, found: Found) -> list[Reading]:
        return super().readings(found) if self.counts(found)["held-out images"] * self.target_fpr >= 1 else []

    def missing(self) -> str:
        return (
            f"a false positive rate of {self.target_fpr:g} is none of audit.target_fprs, or fewer than "
            f"{1 / self.target_fpr:g} held-out images can't show it"
        )


class Others(Limit):
    """Mixed into a limit: it holds the attacks that weren't named beforehand."""

    def rows(self, found: Found) -> list[AuditRow]:
        """Every attack without a mask, plain and calibrated, but for what the verdict rests on."""
        named = {row.key for row in held_rows(found, "insider")}
        return [found.report.row(key) for key in found.report.unmasked if key not in named]

    def decide(self, estimate: Estimate) -> Decision:
        decision = super().decide(estimate)
        return "undecided" if decision == "fail" and estimate.lower <= self.most else decision


@dataclass(frozen=True)
class OtherAuroc(Others, AurocLimit):
    """AUROCs of the others."""


@dataclass(frozen=True)
class OtherTpr(Others, ShownTpr):
    """TPRs of the others."""


def auroc_limits(most: float, found: Found) -> list[Limit]:
    """What was named, and the others where there are any."""
    limits: list[Limit] = [AurocLimit(most)]
    return [*limits, OtherAuroc(most)] if OtherAuroc(most).rows(found) else limits


def tpr_limits(most: float, found: Found, *, target_fpr: float) -> list[Limit]:
    """The same of TPRs."""
    others = OtherTpr(most, target_fpr=target_fpr)
    limits: list[Limit] = [ShownTpr(most, target_fpr=target_fpr)]
    return [*limits, others] if others.rows(found) else limits
