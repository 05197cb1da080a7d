"""A limit on epsilon: whether an audit refutes that it is so small."""

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass

from ldm_privacy.evidence.limits.auroc import Who, counts_of, held_rows, named
from ldm_privacy.evidence.limits.limit import Decision, Found, Limit, Reading
from ldm_privacy.metrics.rounding import at_least, at_most
from ldm_privacy.types import Estimate


@dataclass(frozen=True)
class EpsilonLimit(Limit):
    """A claim that epsilon is at most `most`, for splits by coins; see `EpsilonBound`.

    fail: the lower bound is above it, so the claim is refuted. pass: it isn't, and would have been with every coin guessed
    right. undecided: even that would not refute it. A pass refutes nothing else: an audit never shows that epsilon is small.

    A claim that is kept fails with a chance of at most 1 - confidence: one score is held, named beforehand, the last that this
    person has. The best of several would fail more often.

    Args:
        most: Above 0.
        who: Has the score.
        delta: Of the claim.
    """

    most: float
    _: KW_ONLY
    who: Who = "insider"
    delta: float = 0.0

    @property
    def name(self) -> str:
        return "gate.epsilon"

    @property
    def quantity(self) -> str:
        return "epsilon"

    def readings(self, found: Found) -> list[Reading]:
        """The bound twice, and what could have been shown."""
        row = held_rows(found, self.who)[-1]
        if row.epsilon is None:
            return []
        bound = row.epsilon.at(self.delta)
        return [Reading(named(found, row.key), Estimate(bound.value, bound.value, bound.most))]

    def counts(self, found: Found) -> dict[str, int]:
        return counts_of(found)

    def missing(self) -> str:
        return "no coins decided who is a member (data.split=coin)"

    def decide(self, estimate: Estimate) -> Decision:
        if estimate.lower > self.most:
            return "fail"
        return "pass" if estimate.upper > self.most else "undecided"

    def shown(self, estimate: Estimate) -> str:
        return f"epsilon of at least {at_least(estimate.lower)}" + (f" at delta {self.delta:.2g}" if self.delta else "")

    def reason(self, estimate: Estimate, counts: Mapping[str, int]) -> str:
        allowed, most = f"{self.most:g} (gate.epsilon)", f"{at_most(estimate.upper)} with every coin of a half guessed right"
        if (decision := self.decide(estimate)) == "fail":
            return f"above {allowed}: that claim is refuted"
        if decision == "pass":
            return f"so {allowed} is not refuted, and could have been: {most}"
        return f"and {allowed} could not have been refuted ({most}); it takes {self.needed(estimate, counts)}"

    def needed(self, estimate: Estimate, counts: Mapping[str, int]) -> str:
        # -ln(alpha^(-1 / r) - 1) > most, and the coins' alpha from what they can show at most.
        times = math.log1p(math.exp(-self.most)) / math.log1p(math.exp(-estimate.upper))
        return " and ".join(f"{math.ceil(count / times):,} {what}" for what, count in counts.items()) + " at least"
