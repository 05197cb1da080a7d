"""Which checkpoint of a training is the last safe one: limits on each of them, and one statement on the one that is named."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from ldm_privacy.evidence.gate import EXIT_CODES, Ruling
from ldm_privacy.evidence.limits.limit import Decision
from ldm_privacy.types import Estimate


@dataclass(frozen=True)
class Candidate:
    """One checkpoint and what its audit says.

    Attributes:
        name: What it is called.
        epoch: Finished epochs; None where its training isn't known.
        auroc: Of the primary attack and mask.
        ruling: Of the gate.
        is_trained: It had a step of training at least; what has none is safe and of no use, and never named.
        passes: By itself, whatever comes before it.
        stops: Nothing after it can be named. An untrained one stops only where it fails: at step 0 some limits have nothing
            to hold, as that on copies.
    """

    name: str
    epoch: int | None
    auroc: Estimate
    ruling: Ruling
    is_trained: bool = True

    @property
    def passes(self) -> bool:
        return self.ruling.decision == "pass"

    @property
    def stops(self) -> bool:
        return self.ruling.decision == "fail" or (self.is_trained and not self.passes)

    def __str__(self) -> str:
        return self.name if self.epoch is None else f"{self.name} (epoch {self.epoch})"


@dataclass(frozen=True)
class Pick:
    """The last of those that pass with all that come before them.

    They are tested in the order of training, each at the full level, up to the first that doesn't pass; what comes after it is
    shown and never named. That keeps the level without a correction for their number: let k be the first whose truth is at a
    limit or above. One that shouldn't be named can be only if k passes, whatever k is and however the audits depend on each
    other, and k passes with a chance of at most (1 - confidence) / 2. Nothing is assumed of the curve. (Fixed-sequence
    procedure: Maurer, Hothorn & Lehmacher 1995; Westfall & Krishen, J. Stat. Plan. Inference 99, 2001; for the highest safe
    dose Hsu & Berger, JASA 94, 1999.) To name the last one that passes, wherever it stands, would be one more chance to err for
    each that is looked at.

    Attributes:
        candidates: In the order of training, which is known before any of them is audited; one at least.
        confidence: Of the intervals, two-sided.
        primary: The attack and mask of the candidates' AUROCs.
    """

    candidates: Sequence[Candidate]
    confidence: float
    primary: str = ""

    @cached_property
    def num_passed(self) -> int:
        """How many come before the first that doesn't pass."""
        return next((place for place, each in enumerate(self.candidates) if each.stops), len(self.candidates))

    @property
    def named(self) -> Candidate | None:
        """The last safe one; None where already the first that was trained doesn't pass."""
        last = self.candidates[self.num_passed - 1] if self.num_passed else None
        return last if last is not None and last.is_trained else None

    @property
    def stopped_by(self) -> Candidate | None:
        """The first that doesn't pass; None where all do."""
        return self.candidates[self.num_passed] if self.num_passed < len(self.candidates) else None

    @property
    def later(self) -> Sequence[Candidate]:
        """Those after it that pass by themselves."""
        return [each for each in self.candidates[self.num_passed + 1 :] if each.passes]

    @property
    def decision(self) -> Decision:
        """pass: one is named. Otherwise that of the first that was trained: with more samples an undecided one might be."""
        if self.named is not None:
            return "pass"
        return "undecided" if self.stopped_by is None else self.stopped_by.ruling.decision

    @property
    def exit_code(self) -> int:
        """0, 1 or 3."""
        return EXIT_CODES[self.decision]

    @property
    def level(self) -> float:
        """The chance that one is named whose truth is at a limit or above is at most that."""
        return (1 - self.confidence) / 2

    def verdict_on(self, place: int) -> str:
        """What becomes of the candidate at that place, in a word or two."""
        if place >= self.num_passed:
            alone = self.candidates[place].passes
            return "stops here" if place == self.num_passed else "passes alone" if alone else "after the stop"
        if self.candidates[place] is self.named:
            return "named"
        return "passes" if self.candidates[place].passes else "untrained"

    @property
    def sentences(self) -> list[str]:
        """Which one, how sure that is, where it ended and why, what else passes."""
        return [*self._headline(), *self._end(), *self._suspicious()]

    def _headline(self) -> list[str]:
        passed = [each for each in self.candidates[: self.num_passed] if each.passes]
        if self.named is None and passed:
            untrained = f"only the untrained denoiser, {passed[0]}, does"
            return [f"No trained checkpoint passes: {untrained}{'' if self.stopped_by else '; no other one was looked at'}."]
        if self.named is None:
            return ["No checkpoint can be named: already the first one doesn't pass."]
        before = len(passed) - 1
        why = "it passes, and none was looked at before it"
        if before:
            why = f"it passes, and so {'do' if before > 1 else 'does'} the {f'{before} ' if before > 1 else 'one '}before it"
        limits = [each.limit for each in self.named.ruling.judgements]
        apart = "; not so of gate.epsilon, which an audit can refute and never show" if "gate.epsilon" in limits else ""
        return [
            f"The last safe checkpoint is {self.named}: {why}.",
            f"They were tested in the order of training up to the first that doesn't pass, so the chance that one is named "
            f"whose truth is at a limit or above is at most {self.level:.1%}, however many there are{apart}.",
        ]

    def _end(self) -> list[str]:
        if self.stopped_by is None:
            return ["Every checkpoint passes: a later one might too."] if len(self.candidates) > 1 else []
        held = self.stopped_by.ruling.judgements
        reasons = [each.sentence for each in held if each.decision != "pass"]
        return [f"{self.stopped_by} is the first that doesn't pass. {' '.join(reasons)}"]

    def _suspicious(self) -> list[str]:
        if not self.later:
            return []
        verb = "passes" if len(self.later) == 1 else "pass"
        return [
            f"{', '.join(map(str, self.later))} {verb} alone, but after one that doesn't: with each that is looked at there is "
            "one more chance to pass by luck, so to choose it now would be to choose by the result. If there is another reason "
            "for it, audit it by itself on samples that were not audited here."
        ]
