"""Picture of a frontier: AUROC against quality, where each setting ends and how each training came there."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ldm_privacy.evidence.frontier import Frontier
from ldm_privacy.evidence.trainings import Point
from ldm_privacy.report.figures.base import style

WIDE, NARROW = 9.6, 3.9
"""In inches: on a page, on a phone."""
LOG_FROM = 10.0
"""Ratio of the worst to the best quality from which on their axis is logarithmic, should all be positive."""


def frontier_figure(frontier: Frontier, *, width: float = WIDE) -> Figure:
    """Left (on a phone above): the mean over the seeds at the last audit, bars in both directions, each seed small beside it.
    Right: whole trainings, every audit a point; the ring is its last audit, hollow while the training goes on."""
    is_wide, labels = width >= WIDE, list(frontier.trainings)
    size = (width, 4.9) if is_wide else (width, 7.2)
    figure = Figure(figsize=size, layout="constrained")
    ends, lines = figure.subplots(*((1, 2) if is_wide else (2, 1)))
    for place, label in enumerate(frontier.cells):
        if label in labels:
            _draw_end(ends, frontier, label, style(place))
            _draw_lines(lines, frontier, label, style(place))
    trainings = [training for each in frontier.trainings.values() for training in each.values()]
    for axis, shown, title in (
        (ends, [each.points[-1] for each in [t for t in trainings if t.has_ended] or trainings], "Where they end"),
        (lines, [point for training in trainings for point in training.points], "Whole trainings, audit by audit"),
    ):
        _scale(axis, shown)
        axis.axhline(0.5, color="0.7", linewidth=0.8, zorder=0)
        axis.set_title(title, fontsize="medium")
        axis.set_xlabel(f"{frontier.quality} (left: better)", fontsize="small")
        axis.set_ylabel("AUROC (lower: more private)", fontsize="small")
        axis.tick_params(which="both", labelsize="small")
        axis.spines[["right", "top"]].set_visible(False)
    handles, names = ends.get_legend_handles_labels()
    columns = max(1, int(width / (0.55 + 0.085 * max(map(len, names), default=1))))
    options: dict[str, Any] = {"ncols": columns, "frameon": False, "fontsize": "small"}
    for text in figure.legend(handles, names, loc="outside lower center", **options).get_texts():
        text.set_parse_math(False)
    return figure


def _scale(axis: Axes, points: Sequence[Point]) -> None:
    """Limits by the points and their intervals over the samples; a bar over few trainings may run out of the panel."""
    quality, area = [each.quality for each in points], [each.attack.auroc for each in points]
    least, most = min(each.value for each in quality), max(each.value for each in quality)
    if least > 0 and most / least > LOG_FROM:
        axis.set_xscale("log")
        axis.set_xlim(min(each.lower if each.lower > 0 else each.value for each in quality) / 1.3, most * 1.3)
    else:
        lower, upper = min(each.lower for each in quality), max(each.upper for each in quality)
        axis.set_xlim(lower - 0.1 * (upper - lower), upper + 0.1 * (upper - lower))
    lower, upper = min(each.lower for each in area), max(each.upper for each in area)
    axis.set_ylim(lower - 0.05 * (upper - lower), upper + 0.05 * (upper - lower))


def _draw_end(axis: Axes, frontier: Frontier, label: str, look: dict[str, Any]) -> None:
    """The mean of what has ended, and each of it; of a setting of which nothing has, its entry in the legend alone."""
    alone = {"color": look["color"], "marker": look["marker"], "linestyle": "none"}
    if label not in frontier.auroc:
        axis.plot([], [], label=label, **alone, fillstyle="none")
        return
    x, y = frontier.final_quality[label].mean, frontier.auroc[label].mean
    bars: dict[str, Any] = {
        "xerr": [[x.value - x.lower], [x.upper - x.value]],
        "yerr": [[y.value - y.lower], [y.upper - y.value]],
    }
    axis.errorbar(x.value, y.value, **bars, **alone, markersize=8, elinewidth=1.0, capsize=2, label=label)
    seeds = [each.points[-1] for each in frontier.ended(label).values()]
    axis.plot([p.quality.value for p in seeds], [p.attack.auroc.value for p in seeds], **alone, markersize=3.5, alpha=0.55)


def _draw_lines(axis: Axes, frontier: Frontier, label: str, look: dict[str, Any]) -> None:
    for training in frontier.trainings[label].values():
        x, y = (list(each) for each in (training.line.quality, training.line.auroc))
        axis.plot(x, y, **look | {"markersize": 3}, linewidth=1.0, alpha=0.8)
        ring = {"marker": "o", "markersize": 8, "fillstyle": "none", "linestyle": "none", "color": look["color"]}
        if training.has_ended:
            axis.plot(x[-1:], y[-1:], **ring, markeredgewidth=1.0)
