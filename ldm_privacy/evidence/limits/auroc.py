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


def rows_of(found: Found, who: Who, attack: str | None = None) -> list[AuditRow]:
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


def counts_of(found: Found) -> dict[str, int]:
    """Reported samples."""
    metrics = found.report.rows[0].metrics
    return {"members": metrics.num_members, "held-out images": metrics.num_heldout}


def guessing(num_members: int, num_heldout: int, confidence: float) -> float:
    """The upper bound of an AUROC of .5 with so many samples: Hanley & McNeil (Radiology 1982), on the logit scale."""
    variance = (num_members + num_heldout + 1) / (12 * num_members * num_heldout)
    return float(special.expit(stats.norm.isf((1 - confidence) / 2) * variance**0.5 / 0.25))


def num_needed(most: float, confidence: float) -> int:
    """Samples a side from which that upper bound is at most `most`: (2 n + 1) / (12 n^2) = (logit(most) / (4 z))^2."""
    variance = float(special.logit(most) / 4 / stats.norm.isf((1 - confidence) / 2)) ** 2
    return math.ceil((1 + math.sqrt(1 + 12 * variance)) / (12 * variance))


@dataclass(frozen=True)
class AurocLimit(Limit):
    """The upper bound of an AUROC is at most `most`. An interval below .5 counts turned round: it tells the sides apart too.

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

    def readings(self, found: Found) -> list[Reading]:
        return [_turned(named(found, row.key), row.metrics.auroc) for row in rows_of(found, self.who, self.attack)]

    def counts(self, found: Found) -> dict[str, int]:
        return counts_of(found)

    def missing(self) -> str:
        return f"{self.attack} was left out of this audit"

    def foretold(self, num_members: int, num_heldout: int, confidence: float) -> str | None:
        upper = guessing(num_members, num_heldout, confidence)
        few = "" if upper <= self.most else f"; it takes {num_needed(self.most, confidence):,} of each"
        return (
            f"{self.name} {self.most:g}: with {num_members:,} members and {num_heldout:,} held-out images reported, an AUROC "
            f"of .5 has an upper bound of about {upper:.3f}{few}."
        )


def _turned(of: str, estimate: Estimate) -> Reading:
    if estimate.upper < 0.5:
        return Reading(f"{of}, turned round,", Estimate(1 - estimate.value, 1 - estimate.upper, 1 - estimate.lower))
    return Reading(of, estimate)
