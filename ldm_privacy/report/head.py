"""The head of an evaluation's page: the five answers for somebody who was not there."""

from collections.abc import Mapping

from ldm_privacy.evidence.verdict import LABELS, Verdict, of_groups, parts_of
from ldm_privacy.report.evaluation import Evaluation
from ldm_privacy.report.page.blocks import Answer, Head
from ldm_privacy.types import Tone

RANDOMNESS = "Intervals leave out the randomness of training: another seed gives another model."
TRIED = "Chance, and differences between the two sets of images, were tried as explanations."
STRONGER = "A stronger attack may find what these don't."
LOOK: Mapping[Tone, str] = {"exposed": "Look at the images that are most exposed; exposed.csv lists all."}


def evaluation_head(evaluation: Evaluation) -> Head:
    """What was tested, on what, what it means, what could be wrong, what to do."""
    parts = parts_of(evaluation.evidence)
    verdict = Verdict((parts.meaning, _capital(parts.found), *parts.further), parts.tone, LABELS[parts.tone])
    doubts = Answer((f"{TRIED} {_capital(parts.sure)}", f"{RANDOMNESS} {STRONGER}"), ("controls", "limits"))
    ruled = [] if evaluation.ruling is None else [evaluation.ruling.sentence]
    do = [parts.advice, *ruled, *([LOOK[parts.tone]] if parts.tone in LOOK else [])]
    return Head(_tested(evaluation), _subject(evaluation), verdict, doubts, Answer(do, ("gate", "images", "requirements")))


def _tested(evaluation: Evaluation) -> Answer:
    """The question, and with how many attacks it was asked."""
    data = evaluation.evidence.report.data
    attacks = dict.fromkeys(key.attack for key in data.scores if key not in data.derived and key.attack not in data.views)
    masks = {key.mask for key, kept in data.keep_fraction.items() if kept < 1}
    controls = masks & {*data.controls}
    counts = [
        _count(len(masks - controls), "mask"),
        _count(len(controls), "mask as a control", "masks as controls"),
        _count(len(data.derived), "calibrated score"),
    ]
    asked = "; ".join([", ".join(attacks), *(each for each in counts if not each.startswith("0 "))])
    return Answer(
        (
            "Whether somebody who has an image can learn from this model if it was in the training set (membership inference): "
            f"{asked}.",
        ),
        ("attacks", "protocol"),
    )


def _subject(evaluation: Evaluation) -> Answer:
    """The model as it says of itself, and the images."""
    data, facts, target = evaluation.evidence.report.data, evaluation.facts, evaluation.target
    report = evaluation.evidence.report
    num_members, num_audited = int(data.is_member.sum()), len(data.is_member)
    of = f" of {facts['data']}" if "data" in facts else ""
    of_members, of_heldout = of_groups(data.num_groups())
    halves = "each half choosing for the other" if report.is_reporting.all() else "half of them to choose, half to report"
    images = (
        f"{num_members} members{of_members} (images{of} that it was trained on) and {num_audited - num_members} held-out images"
        f"{of_heldout} (that it was not), {halves}."
    )
    said = [target[name] for name in ("target", "denoiser") if name in target]
    model = f"{evaluation.name}{': ' if said else ''}{'; '.join(said)}."
    return Answer((model, images), ("target", "protocol"))


def _count(number: int, one: str, several: str | None = None) -> str:
    return f"{number} {one if number == 1 else several or f'{one}s'}"


def _capital(sentence: str) -> str:
    """Names of attacks keep their letters."""
    first = sentence.split(" ", 1)[0]
    return sentence if "/" in first or "_" in first else sentence[:1].upper() + sentence[1:]
