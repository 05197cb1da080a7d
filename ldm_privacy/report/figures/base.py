"""What all figures share: panels, the way into a page."""

import io
import math
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ldm_privacy.pictures import PALETTE, image_grid
from ldm_privacy.report.figures.narrow import columns_of, narrowed
from ldm_privacy.report.page.blocks import Picture
from ldm_privacy.types import Estimate, Image

STYLES = ("-", "--", ":", "-.", (0, (8, 2)), (0, (8, 2, 1, 2)))
MARKERS = "os^vDX"
MAX_WHISKERS = 12
"""Of a line among others: more would be a hatching."""
MAX_BYTES = 400_000
"""A drawing above this size goes into the page as pixels: a report of a dozen figures stays under 5 MB."""
CSS_PIXELS = 96
"""Of a page, in an inch."""


def picture(figure: Figure, caption: str, *, narrow: Figure | None = None, max_bytes: int = MAX_BYTES) -> Picture:
    """A figure for the page: SVG, or where that would be larger than `max_bytes` a PNG of two pixels per pixel of the page.

    A phone shows `narrow`, another drawing of the same, by default what `narrowed` makes of it. A figure newly drawn from the
    same data gives the same bytes: ids come from the content, and there is no date. (A constrained layout settles a little
    further each time that one figure is saved.)
    """
    width = round(figure.get_figwidth() * CSS_PIXELS)
    narrow = narrowed(figure) if narrow is None else narrow
    return Picture(_drawn(figure, max_bytes), caption, width, b"" if narrow is None else _drawn(narrow, max_bytes))


def _drawn(figure: Figure, max_bytes: int) -> bytes:
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "ldm-privacy"}):
        # Pixels of image panels are drawn at 1.5 times the size of the page: sharp on most screens, small in the file.
        figure.savefig(buffer, format="svg", facecolor="white", dpi=1.5 * CSS_PIXELS, metadata={"Date": None, "Creator": None})
    if buffer.tell() > max_bytes:
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", facecolor="white", dpi=2 * CSS_PIXELS, metadata={"Software": None})
    return buffer.getvalue()


def style(place: int) -> dict[str, Any]:
    """Colour, dashes and marker of the line at that place; dashes and markers tell lines apart in grey."""
    look = {"linestyle": STYLES[place % len(STYLES)], "marker": MARKERS[place % len(MARKERS)], "markersize": 4}
    return {"color": PALETTE[place % len(PALETTE)], **look}


def panels(
    names: Sequence[str], title: str, *, columns: int = 3, size: tuple[float, float] = (4.2, 3.8)
) -> tuple[Figure, dict[str, Axes]]:
    """A figure with a panel of that size (in inches) for each name, at most so many beside each other."""
    rows = math.ceil(len(names) / columns)
    columns = math.ceil(len(names) / rows)
    figure = Figure(figsize=(max(5.0, size[0] * columns), size[1] * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis in axes[len(names) :]:
        axis.remove()
    figure.suptitle(title)
    return figure, dict(zip(names, axes))


def banded(axis: Axes, x: Sequence[float], estimates: Sequence[Estimate], **line: Any) -> None:
    """A line with its interval as a band behind it; of a single point, as a bar."""
    value, lower, upper = zip(*((each.value, each.lower, each.upper) for each in estimates))
    axis.plot(x, value, marker=".", **line)
    if len(x) > 1:
        axis.fill_between(x, lower, upper, facecolor=(line["color"], 0.18), edgecolor=(line["color"], 0.6), linewidth=0.6)
    else:
        axis.vlines(x, lower, upper, color=line["color"], linewidth=0.8)


def dodged(x: Sequence[float], *, place: int, count: int) -> list[float]:
    """The places of a line among `count` with whiskers: each line's a little beside the others', a third of a step in all."""
    spacing = (max(x) - min(x)) / max(1, len(x) - 1) or 1.0
    return [each + spacing * max(1, len(x) // MAX_WHISKERS) * 0.35 * ((place + 0.5) / count - 0.5) for each in x]


def whiskers(x: Sequence[float], estimates: Sequence[Estimate]) -> tuple[list[float], list[float], list[float], list[float]]:
    """Where a line has its whiskers, their middles and lengths down and up; at most `MAX_WHISKERS`, one at the last point."""
    every = math.ceil(len(x) / MAX_WHISKERS)
    shown = [(x[at], estimates[at]) for at in range((len(x) - 1) % every, len(x), every)]
    rows = [(at, each.value, each.value - each.lower, each.upper - each.value) for at, each in shown]
    at, middle, down, up = (list(column) for column in zip(*rows))
    return at, middle, down, up


def whiskered(axis: Axes, x: Sequence[float], estimates: Sequence[Estimate], *, place: int, count: int, label: str) -> None:
    """A line among `count` others, with its interval as `whiskers`: five bands over each other would be one."""
    line, x = style(place), dodged(x, place=place, count=count)
    axis.plot(x, [each.value for each in estimates], linewidth=1.3, **line | {"marker": ""})
    at, middle, down, up = whiskers(x, estimates)
    axis.errorbar(at, middle, (down, up), elinewidth=0.9, **line | {"linestyle": "none"})
    axis.plot([], [], label=label, **line)  # for the legend


def legend_below(axis: Axes, title: str | None = None, *, columns: int = 3) -> None:
    """A panel's legend under it, where no data are; long labels stand in fewer columns."""
    columns = columns_of(axis.get_legend_handles_labels()[1], columns)
    options: dict[str, Any] = {"fontsize": "small", "ncols": columns, "frameon": False, "handlelength": 3}
    axis.legend(title=title, loc="upper center", bbox_to_anchor=(0.5, -0.2), **options)


def show_image(axis: Axes, image: Image) -> None:
    """One image in [-1, 1], pixel by pixel, without ticks."""
    axis.imshow(image_grid(image[None]), interpolation="nearest")
    axis.set(xticks=[], yticks=[])
