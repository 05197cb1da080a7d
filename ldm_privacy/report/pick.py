"""A pick as a page, a file and in the terminal."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from ldm_privacy import __version__
from ldm_privacy.evidence.limits.limit import Decision
from ldm_privacy.evidence.pick import Pick
from ldm_privacy.evidence.verdict import Verdict
from ldm_privacy.report.figures.base import picture
from ldm_privacy.report.figures.pick import pick_figure
from ldm_privacy.report.metrics_file import judgement_record, write_json
from ldm_privacy.report.page.blocks import Answer, Cell, Code, DataTable, Head, Paragraph, Section
from ldm_privacy.report.page.page import Page, write_page
from ldm_privacy.report.sections.gate import MEANING, TONES
from ldm_privacy.report.tables import plain_table, short

HOW = (
    "Order. The checkpoints stand in the order of training, known before any of them was audited. All were audited on "
    "the same samples with the same latents, influence and masks.",
    "Level. They are tested one after the other, each as if it were the only one, up to the first that doesn't pass; the last "
    "before it is named. So an error takes one particular false pass: that of the first checkpoint whose truth is at a limit "
    "or above. Its chance doesn't grow with their number, nothing is assumed of the curve, audits may depend on each other "
    "(fixed-sequence procedure: Maurer, Hothorn & Lehmacher 1995; Westfall & Krishen 2001; Hsu & Berger 1999 for the "
    "highest safe dose). The last one that passes, wherever it stands, would be wrong more often the more are looked at.",
    "Intervals are over the audited samples and leave out the randomness of training: it is a statement on these checkpoints.",
)
DOUBT = (
    "That many were looked at is paid for, the order being known before; intervals leave out the randomness of training, and a "
    "stronger attack may find what these don't."
)
ADVICE: dict[Decision, str] = {
    "pass": "Ship {named} and no later one.",
    "undecided": "Audit more images, or allow more: these are too few to tell.",
    "fail": "Ship none of these: train anew with fewer steps, more images or a defence.",
}
LABELS: dict[Decision, str] = {"pass": "One is safe", "undecided": "Undecided", "fail": "None is safe"}


def pick_page(pick: Pick, following: str) -> Page:
    """`following`: the command that comes next."""
    rows: list[list[str | Cell]] = []
    for place, (name, epoch, area, *decisions, becomes) in enumerate(_rows(pick)):
        judged = pick.candidates[place].ruling.judgements
        cells = [Cell(text, TONES[each.decision]) for text, each in zip(decisions, judged)]
        rows.append([name, epoch, becomes, *cells, area])
    limits = _limits(pick)
    bold = [] if pick.named is None else [pick.num_passed - 1]
    table = DataTable(
        ["checkpoint", "epoch", "", *limits, f"AUROC of {pick.primary}"],
        rows,
        "Every checkpoint, in the order of training.",
        num_texts=3 + len(limits),
        emphasised=bold,
        note=MEANING,
        is_open=True,
    )
    caption = (
        "The worst of what each limit holds, with its interval, against the limit. Grey: after the first that doesn't pass."
    )
    said = [[str(each), judged.limit, judged.sentence] for each in pick.candidates for judged in each.ruling.judgements]
    sentences = DataTable(["checkpoint", "limit", "sentence"], said, "What each limit found of each checkpoint.", num_texts=3)
    sections = {
        "curve": Section("Checkpoint by checkpoint", "", (picture(pick_figure(pick), caption), table, sentences)),
        "next": Section("What comes next", "", (Code(following, "Command"),)),
        "made": Section("How it was made", "", tuple(map(Paragraph, HOW))),
    }
    asked = f"Which checkpoint of a training is the last that is within the limits: {', '.join(limits)}."
    names = (
        f"{len(pick.candidates)} checkpoints, {pick.candidates[0]} to {pick.candidates[-1]}, all audited on the same images."
    )
    named = "none" if pick.named is None else str(pick.named)
    head = Head(
        Answer((asked,), ("curve",)),
        Answer((names,)),
        Verdict(tuple(pick.sentences), TONES[pick.decision], LABELS[pick.decision]),
        Answer((DOUBT,), ("made",)),
        Answer((ADVICE[pick.decision].format(named=named),), ("next",)),
    )
    return Page(
        "The last safe checkpoint",
        f"{len(pick.candidates)} checkpoints, {pick.confidence:.0%} intervals",
        head,
        sections,
        f"ldm_privacy {__version__}",
    )


def write_pick(pick: Pick, folder: Path, *, places: Mapping[str, Path], following: str) -> None:
    """pick.html and pick.json in that folder; `places`: of the checkpoints, by name."""
    candidates = [
        {
            "name": each.name,
            "checkpoint": str(places[each.name]),
            "epoch": each.epoch,
            "auroc": each.auroc,
            "decision": each.ruling.decision,
            "becomes": pick.verdict_on(place),
            "limits": [judgement_record(judged) for judged in each.ruling.judgements],
        }
        for place, each in enumerate(pick.candidates)
    ]
    content = {
        "decision": pick.decision,
        "named": None if pick.named is None else str(places[pick.named.name]),
        "level": pick.level,
        "sentences": pick.sentences,
        "primary": pick.primary,
        "candidates": candidates,
    }
    write_json(folder / "pick.json", content)
    write_page(pick_page(pick, following), folder / "pick.html")


def print_pick(pick: Pick, console: Console) -> None:
    """A row for each checkpoint, then the sentences."""
    table = plain_table(f"Last safe checkpoint; AUROC of {escape(pick.primary)}, {pick.confidence:.0%} intervals")
    limits = _limits(pick)
    for place, column in enumerate(("checkpoint", "epoch", "AUROC", *limits, "")):
        table.add_column(escape(column), no_wrap=place in (1, 2), overflow="fold")
    for row in _rows(pick):
        table.add_row(*map(escape, row))
    console.print(table)
    for sentence in pick.sentences:
        console.print(sentence, highlight=False, markup=False)


def _limits(pick: Pick) -> list[str]:
    """Each limit in short, as "auroc 0.6"."""
    held = pick.candidates[0].ruling.judgements
    return [f"{each.limit.removeprefix('gate.').removeprefix('attacks.')} {each.most:g}" for each in held]


def _rows(pick: Pick) -> Sequence[Sequence[str]]:
    """Name, epoch, AUROC, each limit's decision, what becomes of it."""
    return [
        [
            each.name,
            "-" if each.epoch is None else str(each.epoch),
            short(each.auroc),
            *(judged.decision for judged in each.ruling.judgements),
            pick.verdict_on(place),
        ]
        for place, each in enumerate(pick.candidates)
    ]
