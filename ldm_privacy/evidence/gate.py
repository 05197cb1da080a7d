"""The gate: several limits, one decision, an exit code."""

from collections.abc import Sequence
from dataclasses import dataclass

from ldm_privacy.evidence.limits.limit import Decision, Found, Judgement, Limit, worst

EXIT_CODES: dict[Decision, int] = {"pass": 0, "fail": 1, "undecided": 3}
"""Of the commands; 2 is a mistake of the user's."""


@dataclass(frozen=True)
class Ruling:
    """What each limit says, in their order. The worst counts: fail, then undecided."""

    judgements: tuple[Judgement, ...]

    @property
    def decision(self) -> Decision:
        """Of all limits together."""
        return worst([each.decision for each in self.judgements])

    @property
    def exit_code(self) -> int:
        """0, 1 or 3."""
        return EXIT_CODES[self.decision]

    @property
    def sentence(self) -> str:
        """The decision, and of how many limits."""
        count = len(self.judgements)
        of = {each: sum(judged.decision == each for judged in self.judgements) for each in EXIT_CODES}
        parts = ", ".join(f"{number} {decision}" for decision, number in of.items() if number)
        return f"Gate: {self.decision} ({count} limit{'s' * (count != 1)}: {parts})."


@dataclass(frozen=True)
class Gate:
    """Limits that an audit is held against.

    Example:
        >>> Gate([AurocLimit(0.6), TprLimit(0.05, target_fpr=0.01)]).rule(Found(report, key)).decision  # doctest: +SKIP
        'undecided'
    """

    limits: Sequence[Limit]

    def rule(self, found: Found) -> Ruling:
        """Every limit's judgement. A pure function of what was found; no network passes."""
        return Ruling(tuple(limit.judge(found) for limit in self.limits))
