"""A limit on the AUROC of what the verdict rests on, or of a named attack."""

import math
from dataclasses import KW_ONLY, dataclass
from typing import Literal, TypeAlias

from scipy import special, stats

from ldm_privacy.audit.row import AuditRow
from ldm_privacy.audit.scores import informed
from ldm_privacy.evidence.limits.limit import Found, Limit, Reading
from ldm_privacy.types import AuditKey, Estimate

Who: TypeAlias = Literal["insider", "outsider"]
"""An outsider has the model (and its reference where that is public); an insider has the run's checkpoints as well, and can do
whatever an outsider can."""


def held_rows(found: Found, who: Who, attack: str | None = None) -> list[AuditRow]:
    """What a limit holds: the primary attack as it is and as that person has it calibrated, or every row of a named attack.

    `attack`: a label, or one with its mask, as "sima/all".
    """
    report = found.report
    if attack is not None:
        return [row for row in report.rows if attack in (row.key.attack, str(row.key))]
    known = [
        informed(report.data.derived, found.key, with_history=each) for each in ((False, True), (False,))[who == "outsider"]
    ]
    return [report.row(key) for key in dict.fromkeys([found.key, *known])]


def named(found: Found, key: AuditKey) -> str:
    """An attack and mask, and who can have it."""
    of = found.report.data.derived.get(key)
    return f"{key} ({'insider' if of is not None and of.is_insiders else 'outsider'})"


def left_out(attack: str | None) -> str:
    """Why there is nothing to read of a named attack."""
    return f"{attack} was left out of this audit"


def counts_of(found: Found) -> dict[str, int]:
    """Reported samples."""
    metrics = found.report.rows[0].metrics
    return {"members": metrics.num_members, "held-out images": metrics.num_heldout}


def guessing(num_members: int, num_heldout: int, confidence: float) -> float:
    """The bound below which half of the audits of guessing have the upper bound that is held, of so many samples.

    Whichever way round has the larger one: Hanley & McNeil's deviation (Radiology 1982) on the logit scale, times z and the
    median of a normal number without its sign.
    """
    variance = (num_members + num_heldout + 1) / (12 * num_members * num_heldout)
    return float(special.expit(_reach(confidence) * variance**0.5 / 0.25))


def num_needed(most: float, confidence: float) -> int:
    """Samples a side from which that upper bound is at most `most`: (2 n + 1) / (12 n^2) = (logit(most) / (4 (z + .67)))^2."""
    variance = float(special.logit(most) / 4 / _reach(confidence)) ** 2
    return math.ceil((1 + math.sqrt(1 + 12 * variance)) / (12 * variance))


def _reach(confidence: float) -> float:
    """From .5 to that bound, in standard deviations."""
    return float(stats.norm.isf((1 - confidence) / 2) + stats.norm.isf(0.25))


@dataclass(frozen=True)
class AurocLimit(Limit):
    """The upper bound of an AUROC is at most `most`, whichever way round: one below .5 tells the sides apart as well.

    The interval has to lie in [1 - most, most]: a truth that doesn't passes with a chance of at most (1 - confidence) / 2.

    Args:
        most: In (0.5, 1).
        who: Can have the scores; where no attack is named.
        attack: A label, whose masks are all held to it, or one with its mask, as "sima/all".
    """

    most: float
    _: KW_ONLY
    who: Who = "insider"
    attack: str | None = None

    @property
    def name(self) -> str:
        return "gate.auroc" if self.attack is None else f"gate.attacks.{self.attack}"

    @property
    def quantity(self) -> str:
        return "AUROC"

    def rows(self, found: Found) -> list[AuditRow]:
        """Those that it holds."""
        return held_rows(found, self.who, self.attack)

    def readings(self, found: Found) -> list[Reading]:
        return [_turned(named(found, row.key), row.metrics.auroc) for row in self.rows(found)]

    def counts(self, found: Found) -> dict[str, int]:
        return counts_of(found)

    def missing(self) -> str:
        return left_out(self.attack)

    def foretold(self, num_members: int, num_heldout: int, confidence: float) -> str | None:
        upper = guessing(num_members, num_heldout, confidence)
        few = "" if upper <= self.most else f"; it takes {num_needed(self.most, confidence):,} of each"
        return (
            f"{self.name} {self.most:g}: with {num_members:,} members and {num_heldout:,} held-out images reported, the upper "
            f"bound of guessing is above {upper:.3f} in half of the audits{few}."
        )


def _turned(of: str, estimate: Estimate) -> Reading:
    """Each number of the AUROC or of the one the other way round, whichever is larger."""
    found = estimate.value, estimate.lower, estimate.upper
    held = Estimate(*map(max, found, (1 - estimate.value, 1 - estimate.upper, 1 - estimate.lower)))
    return Reading(of, estimate) if held == estimate else Reading(f"{of}, turned round,", held)
