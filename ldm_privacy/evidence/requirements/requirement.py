"""What a requirement is: a sentence of a standard, the limits that stand for it here, and what an audit says of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from ldm_privacy.evidence.epsilon import Proven
from ldm_privacy.evidence.gate import Gate, Ruling
from ldm_privacy.evidence.gather import Evidence
from ldm_privacy.evidence.limits.limit import DECISIONS, Decision, Found, Judgement, Limit, worst
from ldm_privacy.plugins import blamed_on
from ldm_privacy.registry import REQUIREMENTS

NO_ADVICE = (
    "No legal advice: numbers of an audit beside sentences of standards. Words in quotation marks are the source's, all others "
    "are ours. Whether a requirement applies, and whether it is met, is for those to say who answer for the system, and for "
    "the authority."
)


@dataclass(frozen=True)
class Case:
    """What requirements are held against.

    Attributes:
        evidence: Of the audit.
        results: What watchers found, by label.
        claim: What is claimed of epsilon, where anything is.
    """

    evidence: Evidence
    results: Mapping[str, object] = field(default_factory=dict)
    claim: Proven | None = None

    @property
    def found(self) -> Found:
        """What limits are held against."""
        return Found(self.evidence.report, self.evidence.key, self.results)


@dataclass(frozen=True)
class RequirementAnswer:
    """What an audit says of a requirement.

    Attributes:
        reference, says, held_to, source: Of the requirement.
        decision: The worst of its limits'; undecided where an obstacle stands in the way.
        found: Our numbers in words, one of each quantity, and of what they are; empty where nothing was measured.
        why: A sentence for each of them, or the obstacle.
        takes: What it would take to pass, or to decide.
        judgements: Of all its limits.
    """

    reference: str
    says: str
    held_to: str
    source: str
    decision: Decision
    found: tuple[str, ...]
    why: tuple[str, ...]
    takes: str
    judgements: tuple[Judgement, ...]


class Requirement:
    """A subclass gives the texts and `limits`; it is registered with `@REQUIREMENTS.register("name")`.

    Attributes:
        reference: Where it stands, as exactly as it can be said.
        says: What it asks for; in quotation marks where the words are its own.
        held_to: What it is held to here, and whose the margins are.
        source: Address.
        lacks: What to do where nothing was measured.
        more: What gives more samples.
        mend: What to do after a fail.
    """

    reference: ClassVar[str]
    says: ClassVar[str]
    held_to: ClassVar[str]
    source: ClassVar[str]
    lacks: ClassVar[str]
    more: ClassVar[str]
    mend: ClassVar[str] = (
        "another model: an earlier checkpoint, a shorter training or one on more images, or differentially private training; "
        "then its own audit"
    )

    def limits(self, case: Case) -> Sequence[Limit]:
        """What it is held to: all of them must pass."""
        raise NotImplementedError

    def obstacle(self, case: Case) -> tuple[str, str] | None:
        """Why the audit can't decide it whatever it found, and what that takes; None where it can."""
        return None

    def found(self, case: Case, judgements: Sequence[Judgement]) -> list[str]:
        """Our numbers in words: the worst of each quantity."""
        worst: dict[str, tuple[tuple[int, float], str]] = {}
        for each in judgements:
            if each.worst is not None:
                rank = (DECISIONS.index(each.decision), each.worst.estimate.upper)
                told = rank, f"{each.found} of {each.worst.of}"
                worst[each.quantity] = max(worst.get(each.quantity, told), told)
        return [text for _, text in worst.values()]

    def answer(self, case: Case) -> RequirementAnswer:
        """What the audit says of it. A pure function of the case; no network passes."""
        judgements = Gate(self.limits(case)).rule(case.found).judgements
        if (obstacle := self.obstacle(case)) is not None:
            decision: Decision = "undecided"
            why, takes = [f"{decision}: {obstacle[0]}."], obstacle[1]
        else:
            decision = worst([each.decision for each in judgements])
            why, takes = [each.sentence for each in judgements], self.takes(decision, judgements)
        found = tuple(self.found(case, judgements))
        return RequirementAnswer(
            self.reference, self.says, self.held_to, self.source, decision, found, tuple(why), takes, judgements
        )

    def takes(self, decision: Decision, judgements: Sequence[Judgement]) -> str:
        """What it would take to pass, or to decide."""
        if decision == "pass":
            return "nothing more for this model; another checkpoint or training takes its own audit"
        if decision == "fail":
            return self.mend
        undecided = [each for each in judgements if each.decision == "undecided"]
        steps = [f"{each.needed} ({self.more})" for each in undecided if each.needed]
        if any(each.worst is not None and not each.needed for each in undecided):
            steps.append(f"more images ({self.more}); how many can't be said: an estimate lies at its limit or above it")
        if any(each.worst is None for each in undecided):
            steps.append(self.lacks)
        return "; ".join(dict.fromkeys(steps))


def leaking(case: Case) -> tuple[str, str] | None:
    """The obstacle of every number that compares members with held-out images: they differ without any model."""
    leaks = [each.name for each in case.evidence.findings.values() if each.leaks]
    if not leaks:
        return None
    verb = "tells" if len(leaks) == 1 else "tell"
    return (
        f"{' and '.join(leaks)} {verb} members from held-out images without any model, so attack numbers measure the split",
        "a split drawn at random, and another audit",
    )


def answers(
    evidence: Evidence, *, results: Mapping[str, object] | None = None, ruling: Ruling | None = None
) -> list[RequirementAnswer]:
    """Of every registered requirement, in the order of their references.

    Args:
        evidence: Of the audit.
        results: What watchers found, by label.
        ruling: Of the gate: `gate.epsilon` is a claim of epsilon where the training itself proves none.
    """
    case = Case(evidence, results or {}, claimed(evidence, ruling))
    given = []
    for name in REQUIREMENTS:
        requirement = REQUIREMENTS.get(name)
        with blamed_on(requirement):
            given.append(requirement().answer(case))
    return sorted(given, key=lambda each: each.reference)


def claimed(evidence: Evidence, ruling: Ruling | None) -> Proven | None:
    """What is claimed of epsilon: by the training's own proof, or by the gate; None where nothing is."""
    if evidence.proven is not None or ruling is None:
        return evidence.proven
    limits = {each.limit: each.most for each in ruling.judgements}
    return Proven(limits["gate.epsilon"], 0.0, "what gate.epsilon claims") if "gate.epsilon" in limits else None


def in_short(given: Sequence[RequirementAnswer]) -> str:
    """How many of which decision."""
    of = {decision: sum(each.decision == decision for each in given) for decision in reversed(DECISIONS)}
    return ", ".join(f"{count} {decision}" for decision, count in of.items() if count)
