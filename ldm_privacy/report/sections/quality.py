"""Section: how good the generated images are, and whether they lie nearer to the members."""

from ldm_privacy.registry import SECTIONS
from ldm_privacy.report.evaluation import Evaluation
from ldm_privacy.report.page.blocks import Block, Cell, DataTable, Paragraph, Section
from ldm_privacy.watch.quality_report import SIDES, QualityReport

FIGURES = {
    "generations": "Generated images above the held-out image and the member nearest to each, by pixels.",
    "quality": "Distances at each look. Where the lines part, generations come nearer to the members than to images of the "
    "same kind that were never seen.",
}
BIASED = ("swd", "fid")
"""Distances that are above 0 between two sets of one law."""


@SECTIONS.register("quality")
def quality(evaluation: Evaluation) -> Section | None:
    """Distance by side, the gap, reconstructions; a strip of generations; the curves. None where quality was not looked at."""
    report = evaluation.result(QualityReport)
    if report is None:
        return None
    strip, curves = ({name: words} for name, words in FIGURES.items())
    blocks: list[Block] = [
        _table(report),
        *evaluation.pictures(strip),
        *evaluation.pictures(curves),
        Paragraph(_how(report)),
    ]
    return Section("How good the generated images are", _lead(report), blocks, place=25)


def _lead(report: QualityReport) -> str:
    name, of = report.primary, report.estimates
    gap, ceiling = of[f"{name}_gap"], of.get(f"{name}_reconstructions")
    codec = "" if ceiling is None else f", the codec's reconstructions {ceiling}"
    nearer = (
        "They lie nearer to the members than to held-out images"
        if gap.upper < 0
        else "That they lie nearer to the members than to held-out images is not shown"
    )
    return f"Generations lie {of[f'{name}_heldout']} from held-out images by {name}{codec}. {nearer} (gap {gap})."


def _table(report: QualityReport) -> DataTable:
    names = [key.removesuffix("_heldout") for key in report.estimates if key.endswith("_heldout")]
    rows = []
    for name in names:
        found = [report.estimates.get(f"{name}_{side}") for side in SIDES]
        cells = ["" if each is None else Cell(str(each)) for each in found]
        if (gap := found[SIDES.index("gap")]) is not None and gap.upper < 0:
            cells[SIDES.index("gap")] = Cell(str(gap), tone="exposed")
        rows.append((name, *cells))
    few = f", at {report.num_reconstructed} a side" if report.num_reconstructed else ""
    biased = [name for name in names if name in BIASED]
    grow = "grows" if len(biased) == 1 else "grow"
    grown = f"{' and '.join(biased)} {grow}"
    note = (
        f"{report.num_generated} generations, {report.num_reference} held-out images and as many members; reconstructions: "
        f"held-out images through the codec against other held-out ones{few}. {grown} as the number falls, "
        "above 0 even between two sets of one kind; the others may lie below it. Gap: members less held-out, paired over "
        "the generations. Intervals are over images and leave out the randomness of training."
    )
    columns = ("distance", "to held-out", "to members", "gap", "reconstructions")
    return DataTable(columns, rows, "Distances of generated images; lower is nearer.", note=note, is_open=True)


def _how(report: QualityReport) -> str:
    features = "; ".join(f"{name}: {words}" for name, words in report.features.items())
    return f"{report.time.capitalize()}, generated {report.how}. {features}."
