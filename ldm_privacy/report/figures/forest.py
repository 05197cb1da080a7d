"""Picture that leads a report: every attack's AUROC beside the controls', a forest plot."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from ldm_privacy.controls.finding import REFERENCE_ALONE, WITHOUT_TARGET
from ldm_privacy.evidence.gather import Evidence
from ldm_privacy.metrics import NullBand
from ldm_privacy.report.figures.base import PALETTE
from ldm_privacy.types import AuditKey, Estimate

LOOKS = {
    "outsider": ("o", PALETTE[0], "attack: needs the model"),
    "reference": ("^", PALETTE[2], "attack: needs the model and its reference"),
    "insider": ("D", PALETTE[1], "attack: needs the run's checkpoints"),
    "control": ("s", "0.25", "control: needs no denoiser"),
    "alone": ("v", PALETTE[2], "control: needs the reference alone"),
}
"""Kind -> marker, colour, what the legend says."""
WIDE, NARROW = 9.6, 3.9
"""In inches: on a page, on a phone."""
ROW, MASK_ROW, GAP = 0.17, 0.05, 0.05
"""Heights in inches: of a row, of a masked attack beneath it, of the gap after masks (twice as much before controls)."""
BAND_COLOUR, LINE_COLOUR = "0.87", "0.45"
MAX_LABEL = 28
FULL: dict[str, Any] = {"markersize": 5.5, "linewidth": 1.6, "alpha": 1.0}
MASKED: dict[str, Any] = {"markersize": 2.5, "linewidth": 0.7, "alpha": 0.55}
RING: dict[str, Any] = {"marker": "o", "color": "black", "markersize": 10, "fillstyle": "none", "linestyle": "none"}
"""Around what the verdict rests on."""


class Mark(NamedTuple):
    """A point with its interval.

    Attributes:
        label: Of its row.
        area: AUROC.
        kind: One of `LOOKS`.
        band: Under permuted labels; controls have none.
        is_masked: It stands small beneath the row of its attack.
        is_primary: The verdict rests on it.
    """

    label: str
    area: Estimate
    kind: str
    band: NullBand | None = None
    is_masked: bool = False
    is_primary: bool = False

    @property
    def is_control(self) -> bool:
        """Whether it is no attack on the target."""
        return self.kind in ("control", "alone")


def forest_marks(evidence: Evidence) -> tuple[list[Mark], list[Mark]]:
    """Attacks and controls from top to bottom, the highest first; those of masks beneath their attack.

    The row of an attack is its unmasked score, or its first where it has none; what the verdict rests on has a row as well.
    """
    report, data = evidence.report, evidence.report.data
    row_of: dict[str, AuditKey] = {}
    for row in report.rows:
        row_of.setdefault(row.key.attack, data.unmasked(row.key.attack) or row.key)
    primary = {evidence.insider, evidence.outsider}
    own = {*row_of.values(), *primary}

    def mark(key: AuditKey) -> Mark:
        derived = data.derived.get(key)
        kind = "outsider"
        if derived is not None and (derived.is_insiders or derived.reference):
            kind = "insider" if derived.is_insiders else "reference"
        label = key.attack if data.keep_fraction[key] == 1.0 else str(key)
        band = evidence.permuted[key].band
        return Mark(label, report.row(key).metrics.auroc, kind, band, key not in own, key in primary)

    attacks = []
    for key in sorted(own, key=lambda key: -report.row(key).metrics.auroc.value):
        masked = [row.key for row in report.rows if row_of[key.attack] == key and row.key.attack == key.attack]
        attacks += [mark(each) for each in (key, *(each for each in masked if each not in own))]
    found = [
        Mark(
            each.name.replace(REFERENCE_ALONE, "reference"),
            each.estimate,
            "alone" if each.looks_at == WITHOUT_TARGET else "control",
        )
        for each in evidence.findings.values()
        if each.estimate is not None
    ]
    return attacks, sorted(found, key=lambda each: -each.area.value)


def forest_figure(evidence: Evidence, *, width: float = WIDE) -> Figure:
    """Every attack's AUROC with its interval, the controls beneath on the same axis; grey bars: under permuted labels.

    Args:
        evidence: Of an evaluation.
        width: In inches; a wide figure has the numbers beside the rows.
    """
    attacks, controls = forest_marks(evidence)
    marks, places, depth = [*attacks, *controls], list[float](), 0.0
    for above, mark in zip([None, *marks], marks):
        height, gaps = _height(mark), 0
        if above is not None and not mark.is_masked:
            gaps = above.is_masked + 2 * (mark.is_control and not above.is_control)
        depth += height + gaps * GAP
        places.append(depth - height / 2)
    handles, columns = _handles(marks), max(1, int(width / 3))
    figure = Figure(figsize=(width, depth + 0.62 + 0.19 * -(-len(handles) // columns)), layout="constrained")
    axis = figure.subplots()
    for mark, place in zip(marks, places):
        _draw(axis, mark, place)
    rows = [(mark, place) for mark, place in zip(marks, places) if not mark.is_masked]
    axis.set_yticks([place for _, place in rows], [_shortened(mark.label) for mark, _ in rows], parse_math=False)
    for label, (mark, place) in zip(axis.get_yticklabels(), rows):
        weight = "bold" if mark.is_primary else "normal"
        label.set(fontsize="small", fontweight=weight)
        if width >= WIDE:
            at = axis.get_yaxis_transform()
            axis.text(1.012, place, str(mark.area), transform=at, va="center", fontsize="small", fontweight=weight)
    ends = [end for mark in marks for end in (mark.area.lower, mark.area.upper, *_ends(mark.band))]
    axis.set(xlim=(min(0.4, *ends) - 0.01, max(0.7, *ends) + 0.01), ylim=(depth + 0.04, -0.04))
    axis.axvline(0.5, color=LINE_COLOUR, linewidth=0.9, linestyle=":", zorder=1)
    axis.set_xlabel("AUROC (0.5: guessing)", fontsize="small")
    axis.tick_params(axis="x", labelsize="small")
    axis.tick_params(axis="y", length=0)
    axis.spines[["left", "right", "top"]].set_visible(False)
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize="small", borderpad=0.1)
    return figure


def forest_caption(evidence: Evidence) -> str:
    """What the figure shows, in a sentence."""
    attacks, controls = forest_marks(evidence)
    best = max((mark for mark in attacks if not mark.is_masked), key=lambda mark: mark.area.value)
    said = f"{best.label} has the highest AUROC of the attacks, {best.area}"
    if controls:
        next_best = max(controls, key=lambda mark: abs(mark.area.value - 0.5))
        said += f"; of the controls {next_best.label} lies farthest from guessing, {next_best.area}"
    return f"{said}; bold and ringed is what the verdict rests on."


def _draw(axis: Axes, mark: Mark, place: float) -> None:
    """A row: the bar of permuted labels, the whisker, the point."""
    marker, colour, _ = LOOKS[mark.kind]
    if mark.band is not None:
        (lower, upper), height = _ends(mark.band), _height(mark)
        axis.add_patch(Rectangle((lower, place - height / 2), upper - lower, height, color=BAND_COLOUR, linewidth=0, zorder=0))
    size = MASKED if mark.is_masked else FULL
    axis.hlines(place, mark.area.lower, mark.area.upper, color=colour, linewidth=size["linewidth"], alpha=size["alpha"])
    axis.plot(mark.area.value, place, color=colour, marker=marker, markeredgewidth=0, **size)
    if mark.is_primary:
        axis.plot(mark.area.value, place, **RING)


def _handles(marks: Sequence[Mark]) -> list[Artist]:
    """The legend: what is in the figure and nothing else."""
    kinds = {mark.kind for mark in marks}
    handles: list[Artist] = [
        Line2D([], [], color=colour, marker=marker, **FULL, label=text)
        for kind, (marker, colour, text) in LOOKS.items()
        if kind in kinds
    ]
    if any(mark.is_masked for mark in marks):
        handles.append(Line2D([], [], color=PALETTE[0], marker="o", **MASKED, label="the same, masked"))
    handles.append(Patch(color=BAND_COLOUR, label="where labels mean nothing (permuted)"))
    return [*handles, Line2D([], [], **RING, label="the verdict rests on it")]


def _height(mark: Mark) -> float:
    return MASK_ROW if mark.is_masked else ROW


def _ends(band: NullBand | None) -> tuple[float, ...]:
    return () if band is None else (band.lower, band.upper)


def _shortened(label: str) -> str:
    return label if len(label) <= MAX_LABEL else f"{label[: MAX_LABEL - 1]}\N{HORIZONTAL ELLIPSIS}"
