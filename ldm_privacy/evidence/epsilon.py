"""What coins let the audit say of epsilon: at least so much, beside what a proof says it is at most."""

from dataclasses import dataclass

from ldm_privacy.audit.report import AuditReport
from ldm_privacy.metrics import EpsilonBound
from ldm_privacy.metrics.rounding import at_least, at_most
from ldm_privacy.types import AuditKey

CONDITIONS = (
    "A fair coin of its own decided of each {unit} whether it was trained on, before and independently of all else; who is "
    "audited doesn't depend on the coins, and of identical images one was kept whatever they said.",
    "Epsilon is that of the whole training, as this run did it: of every network that was trained on members, the autoencoder "
    "too where it was, of the early stop where there was one, and for an insider's row of all its checkpoints. Its neighbours "
    "are data sets with and without one {unit}, delta = 0.",
    "Number of guesses and thresholds were set by the other half's coins. What a half guesses rests on the other's coins, so "
    "the right guesses of both can't be added: each half has half of the level, and the larger bound counts.",
    "The chance of being wrong is over coins and training, for one row that was named beforehand: those that the verdict rests "
    "on (in bold), each by itself. The largest of all rows was chosen by its result and has no such chance.",
    "It bounds from below: a stronger attack, or more coins, may show more; nothing here says that epsilon is small.",
)
"""Under which the bounds hold; `unit` is what a coin is of."""


@dataclass(frozen=True)
class Proven:
    """What a proof says of a training: (epsilon, delta)-DP.

    Attributes:
        epsilon, delta: At most.
        of: What it covers, in words, as in "the denoiser's weights".
        unit: By one of which its neighbouring data sets differ.
    """

    epsilon: float
    delta: float
    of: str
    unit: str = "image"


def unit_of(report: AuditReport) -> str:
    """What a coin is of."""
    return "image" if report.data.group is None else "group"


def said_of_epsilon(
    report: AuditReport, insider: AuditKey, outsider: AuditKey, proven: Proven | None = None
) -> tuple[str, ...]:
    """In words: the bounds of what the verdict rests on, and how they stand to a proof; nothing without coins and proof."""
    bound, unit = report.row(insider).epsilon, unit_of(report)
    if bound is None:
        return () if proven is None else (f"{_proof(proven)} No coins decided who is a member, so the audit can't test it.",)
    half = bound.best
    said = (
        f"Epsilon is {_least(bound)}: {insider} guesses {half.num_correct} of {half.num_guesses} coins right, where all "
        f"{half.num_coins} of that half right would have shown {at_least(bound.most)}"
    )
    if outsider != insider and (alone := report.row(outsider).epsilon) is not None:
        said += f"; with the model alone {outsider} shows that it is {_least(alone)}"
    said += (
        f". Each such bound holds with {report.confidence:.0%} confidence over the coins and this one training, for all that "
        f"was trained on members, between data sets that differ by one {unit}, at delta 0."
    )
    if proven is None:
        return (said,)
    if unit != proven.unit:
        return said, f"{_proof(proven)} The coins were each a {unit}'s: the two can't be compared."
    tested = bound.at(proven.delta)
    told = f"{_proof(proven)} At that delta the audit shows that it is {_least(tested)}"
    if tested.value > proven.epsilon:
        told += ": more than the proof allows, so find out what it leaves out before it is relied on."
    else:
        told += ": no contradiction, and no proof either."
    return said, told


def _least(bound: EpsilonBound) -> str:
    return f"at least {at_least(bound.value)}" if bound.value else "at least 0 (these guesses refute nothing)"


def _proof(proven: Proven) -> str:
    epsilon, delta = at_most(proven.epsilon), at_most(proven.delta, 2)
    return f"Proven for one {proven.unit}, of {proven.of}: epsilon at most {epsilon} at delta {delta}."
