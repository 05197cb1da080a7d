"""What a limit is: a number of an audit that may not be larger, and the decision that its interval allows."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

from ldm_privacy.audit.report import AuditReport
from ldm_privacy.types import AuditKey, Estimate

Decision: TypeAlias = Literal["pass", "undecided", "fail"]
DECISIONS: tuple[Decision, ...] = ("pass", "undecided", "fail")
"""From the best to the worst."""
MOST_SAMPLES = 1e8
"""A need of more is not put into a number."""


@dataclass(frozen=True)
class Found:
    """What limits are held against.

    Attributes:
        report: Of the audit.
        key: The primary attack and mask.
        results: What watchers found, by label.
    """

    report: AuditReport
    key: AuditKey
    results: Mapping[str, object] = field(default_factory=dict)


class Reading(NamedTuple):
    """One number that is held against a limit, and of what it is."""

    of: str
    estimate: Estimate


@dataclass(frozen=True)
class Judgement:
    """What a limit says of an audit.

    Attributes:
        limit: Its key, as "gate.auroc".
        quantity: "AUROC", ...
        most: That is allowed.
        decision: See `decide`.
        sentence: The decision first.
        worst, found: Of what the limit holds, as a number and in words; None and "-" where nothing was measured.
        needed: How many samples would decide, in words, where it is undecided and that can be said; else empty.
    """

    limit: str
    quantity: str
    most: float
    decision: Decision
    sentence: str
    worst: Reading | None
    found: str = "-"
    needed: str = ""


def decide(estimate: Estimate, most: float) -> Decision:
    """pass: the upper bound is at most the limit. fail: the estimate isn't below it. undecided: anything else.

    With two-sided intervals of confidence c a truth at or above the limit passes with a chance of at most (1 - c) / 2, and of
    several limits together with no larger one (all must pass). Whether a truth below it is decided depends on the number of
    samples: with the truth at the limit half of the audits fail, and a truth z standard errors below it fails with a chance of
    1 - Phi(z). More samples can't be expected to make an estimate at the limit or above it pass, so that is no lack of samples.
    """
    if estimate.value >= most:
        return "fail"
    return "pass" if estimate.upper <= most else "undecided"


def reaches(decision: Decision, at: Decision) -> bool:
    """Whether it is that one, or a worse one."""
    return DECISIONS.index(decision) >= DECISIONS.index(at)


def worst(decisions: Sequence[Decision]) -> Decision:
    """The worst of them; pass where there are none."""
    return max(decisions, key=DECISIONS.index, default="pass")


def growth(estimate: Estimate, most: float) -> float:
    """How many times the samples put the upper bound at the limit, if the estimate stays; infinite where none would.

    An interval on the logit scale shrinks with the root of the number of samples (DeLong, Hanley & McNeil); the exact binomial
    one at 0 with the number. If the truth is what was estimated, so many decide in half of the audits.
    """
    if not estimate.value < most or estimate.upper >= 1:
        return math.inf
    if estimate.value <= 0:
        return math.log1p(-estimate.upper) / math.log1p(-most)
    value, upper, limit = (math.log(each / (1 - each)) for each in (estimate.value, estimate.upper, most))
    return ((upper - value) / (limit - value)) ** 2


def rounded_up(number: float) -> int:
    """To two digits: what is estimated has no more."""
    step = 10 ** max(0, math.floor(math.log10(max(number, 1))) - 1)
    return math.ceil(number / step - 1e-9) * step


class Limit:
    """A number that may not be larger than `most`. A subclass writes `name`, `quantity`, `readings` and `counts`."""

    most: float

    @property
    def name(self) -> str:
        """Its key in a config, as "gate.auroc"."""
        raise NotImplementedError

    @property
    def quantity(self) -> str:
        """What is read, as "AUROC"."""
        raise NotImplementedError

    def decide(self, estimate: Estimate) -> Decision:
        """Of one reading; see `decide`."""
        return decide(estimate, self.most)

    def readings(self, found: Found) -> list[Reading]:
        """Everything that it holds; the worst decides. Empty where nothing was measured."""
        raise NotImplementedError

    def counts(self, found: Found) -> dict[str, int]:
        """What the readings rest on: how many of what, as "members"."""
        raise NotImplementedError

    def missing(self) -> str:
        """Why there is nothing to read, in words."""
        return "nothing was measured"

    def foretold(self, num_members: int, num_heldout: int, confidence: float) -> str | None:
        """Whether so many reported samples suffice where there is nothing to find, in words; None where that isn't known."""
        return None

    def judge(self, found: Found) -> Judgement:
        """The decision of the worst reading, with its reason. No network passes."""
        if not (readings := self.readings(found)):
            sentence = f"undecided: {self.missing()}, so there is nothing to hold against {self.name}."
            return Judgement(self.name, self.quantity, self.most, "undecided", sentence, None)
        read = max(readings, key=lambda each: (DECISIONS.index(self.decide(each.estimate)), each.estimate.upper))
        decision = self.decide(read.estimate)
        others = [each.of for each in readings if each is not read]
        more = f" Held to it as well: {', '.join(others)}." if others else ""
        why = self.reason(read.estimate, self.counts(found))
        sentence = f"{decision}: {self.shown(read.estimate)} of {read.of}, {why}.{more}"
        needed = self.needed(read.estimate, self.counts(found)) if decision == "undecided" else ""
        return Judgement(self.name, self.quantity, self.most, decision, sentence, read, self.shown(read.estimate), needed)

    def shown(self, estimate: Estimate) -> str:
        """One reading in words."""
        return f"{self.quantity} {estimate}"

    def reason(self, estimate: Estimate, counts: Mapping[str, int]) -> str:
        """Why it is decided so, in words."""
        allowed = f"{self.most:g} ({self.name})"
        if estimate.value >= self.most:
            sure = "and surely so" if estimate.lower > self.most else "perhaps by chance: its lower bound is"
            return f"not below {allowed}, {sure}"
        if estimate.upper <= self.most:
            return f"its upper bound is at most {allowed}"
        now = " and ".join(f"{count:,} {what}" for what, count in counts.items())
        if not (needed := self.needed(estimate, counts)):
            return f"below {allowed}, but not its upper bound; no number of samples that there could be would decide ({now})"
        return f"below {allowed}, but not its upper bound; if it stays there, {needed} would decide, in place of {now}"

    def needed(self, estimate: Estimate, counts: Mapping[str, int]) -> str:
        """How many samples would decide if an undecided estimate stays, in words; empty where no number would."""
        factor = growth(estimate, self.most)
        if factor * max(counts.values()) > MOST_SAMPLES:
            return ""
        return "about " + " and ".join(f"{rounded_up(factor * count):,} {what}" for what, count in counts.items())
