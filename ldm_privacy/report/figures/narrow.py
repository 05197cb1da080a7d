"""A figure as a phone can show it: its panels under each other, its legends below, its titles in lines."""

import pickle
import textwrap
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.legend import Legend

NARROW = 3.9
"""Width of a figure for a phone, in inches."""
LEGIBLE = 5.0
"""What is no wider can be read when a phone scales it."""
LINE = 48
"""Characters of a title in a line of a narrow figure."""
LEGEND_CHARACTERS = 54
"""That a row of a panel's legend has room for, each line's sample taking 8."""
LEGEND_ROW = 0.19
"""Height in inches."""


def narrowed(figure: Figure) -> Figure | None:
    """The figure drawn anew as a phone can show it: equal panels under each other.

    None where it is narrow enough, where panels are images, which a phone can scale, and where it can't be copied.
    """
    if figure.get_figwidth() <= LEGIBLE or any(axis.images for axis in figure.axes):
        return None
    try:
        copy: Figure = pickle.loads(pickle.dumps(figure))
    except (AttributeError, TypeError, pickle.PicklingError):  # a formatter of somebody's own, for example
        return None
    height = copy.get_figheight() * _stacked(copy) + sum(_lowered(copy, legend) for legend in [*copy.legends])
    copy.set_size_inches(NARROW, height)
    for text in copy.texts:  # the title of the whole among them
        text.set(text=textwrap.fill(text.get_text(), LINE), fontsize="small")
    for axis in copy.axes:
        for side in ("left", "center"):
            axis.set_title(textwrap.fill(axis.get_title(side), LINE), loc=side, fontsize="small")
    copy.set_layout_engine("constrained")
    return copy


def columns_of(labels: list[str], most: int = 3) -> int:
    """Of a legend in a panel or in a narrow figure: long labels stand in fewer."""
    return max(1, min(most, LEGEND_CHARACTERS // (max(map(len, labels)) + 8)))


def _stacked(figure: Figure) -> float:
    """Put panels of one size under each other; how many times as high the figure is then."""
    specs = [axis.get_subplotspec() for axis in figure.axes]
    grids = {spec.get_gridspec() for spec in specs if spec is not None}
    if None in specs or len(grids) != 1:
        return 1.0
    (grid,) = grids
    sizes = (np.asarray(each) for each in (grid.get_width_ratios(), grid.get_height_ratios()))
    if grid.ncols == 1 or any((each != each[0]).any() for each in sizes):
        return 1.0
    below = GridSpec(len(specs), 1, figure=figure)
    for place, axis in enumerate(figure.axes):
        axis.set_subplotspec(below[place])
    return len(specs) / grid.nrows


def _lowered(figure: Figure, legend: Legend) -> float:
    """Put a figure's legend below it; its height in inches."""
    labels, title = [text.get_text() for text in legend.get_texts()], legend.get_title().get_text()
    columns, handles = columns_of(labels), [each for each in legend.legend_handles if each is not None]
    options: dict[str, Any] = {"ncols": columns, "title": title or None, "frameon": False, "fontsize": "small"}
    lower = figure.legend(handles, labels, loc="outside lower center", **options)
    for old, new in zip(legend.get_texts(), lower.get_texts()):
        new.set_parse_math(old.get_parse_math())
    legend.remove()
    return LEGEND_ROW * (-(-len(labels) // columns) + bool(title))
