"""The verdict on a suspect set as a page, as a file and in the terminal."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console

from ldm_privacy import __version__
from ldm_privacy.evidence.own_generations import TARGET_FPR
from ldm_privacy.evidence.suspect import SuspectAnswer, SuspectVerdict
from ldm_privacy.evidence.suspect_words import said_of_suspects
from ldm_privacy.report.figures.base import picture
from ldm_privacy.report.figures.suspect import suspect_figure
from ldm_privacy.report.page.blocks import Answer, Code, DataTable, Head, KeyValues, Paragraph, Section
from ldm_privacy.report.page.page import Page

HOW = (
    "Score. Attack, mask, timestep and calibration are those of largest AUROC between members and held-out images of one half "
    "of the run's audited images; the suspects have no part in that, and neither have the held-out images that they are "
    "compared with, which are of the other half. Images of the run that are in the folder are on neither side.",
    "Test. One-sided Welch test of the means, and the same difference under permuted labels, which is exact at any size; the "
    "larger p-value counts. Images are taken as independent: of ten pictures of one scene name one.",
    "Generations. A logistic classifier of image features, scores and reconstruction error, fitted to half of the run's images "
    f"and of {{num}} generations, with a threshold that lets {TARGET_FPR:.0%} of real images pass. The set passes for "
    "generations where it does so surely more often than members and than held-out images, and is like generations without the "
    "model too.",
    "Copies. Images that are a member pixel by pixel are in the run's record, whatever the model shows. Near-duplicates are "
    "where members have one in the folder surely more often than held-out images have (Fisher's exact test): images of any "
    "kind have as many of either, where chance drew the sides. Generations come before, since they are nearer to members.",
    "Without any model. Two cross-fitted classifiers on simple image features. Where they tell the suspects from held-out "
    "images, scores differ for that alone. What they can't see may still differ: the interval says how much.",
)

ADVICE: dict[SuspectAnswer, str] = {
    "yes": "Ask who trained the model where it has these images from; the answer is on the set, on no single image.",
    "no": "Where the answer says little, ask again with more images of the same owner.",
    "differs": "Audit a run whose held-out images are of the same kind as these, and ask again.",
    "generated": "Leave out what the model may have generated, and ask again.",
}


@dataclass(frozen=True)
class Asked:
    """What was asked, and how.

    Attributes:
        folder, target: Where both lie.
        facts: What the target is, in words.
        num_images: That could be read.
        unreadable: Why others could not.
        told: What the target was told of the suspects; "" where it is told nothing.
        sizes: How many images have another size than the run's, in words; "" where none has.
        split_hash: Of the run.
        scores: Where the scores of the run's images come from, in words.
        command: That repeats it.
    """

    folder: str
    target: str
    facts: Mapping[str, str]
    num_images: int
    unreadable: Sequence[str]
    told: str
    sizes: str
    split_hash: str
    scores: str
    command: str

    @property
    def notes(self) -> list[str]:
        """What the reader must know of the images beside the answer."""
        lost = self.unreadable
        unread = [f"Left out because they can't be read: {len(lost)} (the first: {lost[0].rstrip('.')})."] if lost else []
        brought = f"{self.sizes}, and were brought to it; images as they were trained on are best."
        told = [f"The model is told {self.told}."] if self.told else []
        return unread + ([brought] if self.sizes else []) + told


def print_suspect(verdict: SuspectVerdict, asked: Asked, console: Console) -> None:
    """The answer, then the sentences behind it."""
    for line in (*said_of_suspects(verdict, asked.folder).sentences, *asked.notes):
        console.print(line, highlight=False, markup=False)


def write_suspect_json(verdict: SuspectVerdict, asked: Asked, path: Path) -> None:
    """Every number: answer, sentences, the test, its curves, the checks, what was asked; scores by part."""
    words = said_of_suspects(verdict, asked.folder)
    copies = {name: value for name, value in vars(verdict.copies).items() if not name.endswith("_index")}
    content = {
        "answer": verdict.answer,
        "sentences": words.sentences,
        "p_value": verdict.p_value,
        "level": verdict.level,
        "test": {**asdict(verdict.test), "p_permuted": verdict.p_permuted},
        "score": {**verdict.choice._asdict(), "key": str(verdict.choice.key)},
        "by_size": [asdict(point) for point in verdict.by_size],
        "power": [asdict(point) for point in verdict.power],
        "false_alarms": {str(size): share for size, share in verdict.false_alarms.items()},
        "without_model": {**copies, "auroc": asdict(verdict.blind), "deciding_features": list(verdict.causes)},
        "generations": asdict(verdict.generated),
        "asked": {**asdict(asked), "version": __version__},
        "scores": {name: score.tolist() for name, score in verdict.scores.items()},
    }
    path.write_text(json.dumps(content, indent=1, default=str) + "\n")


def suspect_page(verdict: SuspectVerdict, asked: Asked) -> Page:
    """The page of the verdict."""
    words, num = said_of_suspects(verdict, asked.folder), len(verdict.scores["generations"])
    caption = (
        "Left: the chosen score of every image; the suspects are tested against the held-out images beside them. Right: how "
        f"many sets of a size are told apart at p < {verdict.level:.2g}: parts of the suspects, sets of members, and sets of "
        "held-out images, which are false alarms."
    )
    drawn = picture(suspect_figure(verdict), caption)
    facts = {
        "images": f"{asked.num_images} of {asked.folder}",
        "target": asked.target,
        **{name: value for name, value in asked.facts.items() if name != "target"},
        "score": f"{verdict.choice}; AUROC {verdict.choice.auroc:.3f} on the half that chose",
        "scores of the run's images": asked.scores,
        "split hash": asked.split_hash,
    }
    sections = {
        "figure": Section("Scores and sizes", "", (drawn,)),
        "numbers": Section("Numbers", "", (_sizes(verdict), _passing(verdict))),
        "made": Section(
            "How it was made",
            "",
            (*(Paragraph(each.format(num=num)) for each in HOW), KeyValues(facts.items()), Code(asked.command, "Made by")),
        ),
    }
    answer, test, *checks = words.sentences
    head = Head(
        Answer(
            ("Whether these images, as a set, were in the training data of the model: do they score as members do?",), ("made",)
        ),
        Answer((f"{asked.num_images} images of {asked.folder} against {asked.target}.", *asked.notes)),
        words._replace(sentences=(answer, test)),
        Answer(checks, ("made",)),
        Answer((ADVICE[verdict.answer],), ("numbers",)),
    )
    return Page(
        f"Was it trained on? {asked.folder}",
        f"level {verdict.level:.2g}",
        head,
        sections,
        f"ldm_privacy {__version__}",
    )


def _sizes(verdict: SuspectVerdict) -> DataTable:
    suspects, members = ({point.size: point for point in each} for each in (verdict.by_size, verdict.power))
    rows = []
    for size in sorted({*suspects, *members, *verdict.false_alarms}):
        mine, theirs, alarms = suspects.get(size), members.get(size), verdict.false_alarms.get(size)
        rows.append(
            [
                str(size),
                *(["", ""] if mine is None else [f"{mine.median:.2g}", f"{mine.power:.0%}"]),
                "" if theirs is None else f"{theirs.power:.0%}",
                "" if alarms is None else f"{alarms:.1%}",
            ]
        )
    columns = ["images", "median p", "suspects told apart", "members told apart", "held-out told apart"]
    note = f"Random sets of each size, Welch's test at {verdict.level:.2g}. The last column counts false alarms."
    return DataTable(columns, rows, "The same test by the size of the set.", note=note, is_open=True)


def _passing(verdict: SuspectVerdict) -> DataTable:
    made = verdict.generated
    shares = {"suspects": made.suspects, "held-out": made.heldout, "members": made.members, "generations": made.generations}
    rows = [[name, f"{each.value:.1%}", f"{each.lower:.1%} to {each.upper:.1%}"] for name, each in shares.items()]
    note = "None of these had a part in the classifier or in its threshold. Intervals are Clopper and Pearson's."
    return DataTable(["images", "pass", "interval"], rows, "Who passes for a generation of the model.", note=note, is_open=True)
