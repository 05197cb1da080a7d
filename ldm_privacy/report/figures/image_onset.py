"""Pictures of when images were memorized: the images by the audit of their onset; how early the final list was known."""

import math

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ldm_privacy.evidence.image_onset import ImageOnsets
from ldm_privacy.pictures import HELDOUT_COLOUR, MEMBER_COLOUR, image_grid
from ldm_privacy.report.figures.base import banded, legend_below, whiskered
from ldm_privacy.types import Images

MAX_COLUMNS = 12
"""More audits than that share columns."""
MAX_ROWS = 4
WIDTH, CELL = 9.0, 0.72
"""Of the figure's columns together, and of an image at least: in inches."""


def image_onset_figure(onsets: ImageOnsets, sample_index: Tensor, ranked: Tensor, images: Images, unit: str) -> Figure:
    """A column for each audit: how many members have their onset there, above them the share so far, below them the images.

    Args:
        onsets: Of all audited samples.
        sample_index: (samples,) of them.
        ranked: (members,) sample indices, the most exposed first: those are shown, as many as there is room for.
        images: Of the samples.
        unit: Of the audits' times.
    """
    columns = _columns(len(onsets.times) - onsets.num_consecutive + 1)  # later ones could not be held any more
    place_of = dict(zip(sample_index.tolist(), onsets.onset.tolist()))
    members = [[index for index in ranked.tolist() if first <= place_of[index] <= last] for first, last in columns]
    count, each = len(columns), max(1, int(WIDTH / len(columns) / CELL))
    num_rows = max(1, min(MAX_ROWS, math.ceil(max(map(len, members)) / each)))
    height = num_rows * WIDTH / count / each
    figure = Figure(figsize=(WIDTH + 1.0, 3.9 + height), layout="constrained")
    heights = (1.7, 1.1, height)
    above, bars, strip = figure.subplots(3, 1, gridspec_kw={"height_ratios": heights}, sharex=True)
    ends = [last for _, last in columns]
    for name, chosen, colour, dashes in (
        ("members", onsets.is_member, MEMBER_COLOUR, "-"),
        ("held-out images by the same rule: false alarms", onsets.is_heldout, HELDOUT_COLOUR, "--"),
    ):
        reached = onsets.reached(chosen)
        shares = [reached[last] for last in ends]
        banded(above, list(range(count)), shares, color=colour, linestyle=dashes, label=f"{name} ({int(chosen.sum())})")
    above.set(ylabel="share with an\nonset so far", ylim=(0, 1.02), xlim=(-0.5, count - 0.5))
    drawn = bars.bar(range(count), [len(found) for found in members], 0.8, color="0.6", edgecolor="0.3", linewidth=0.6)
    bars.bar_label(drawn, fontsize="small", padding=1)
    bars.margins(y=0.25)
    bars.set(ylabel="members")
    for column, found in enumerate(members):
        _draw_images(strip, column, found[: each * num_rows], each, images)
    strip.set(xlim=(-0.5, count - 0.5), ylim=(num_rows, 0), yticks=[])
    strip.set_xticks(range(count), [_label(onsets.times[first], onsets.times[last]) for first, last in columns])
    strip.set(xlabel=f"{unit} of the onset", ylabel="the most\nexposed first")
    for spine in strip.spines.values():
        spine.set_visible(False)
    figure.suptitle("When images were memorized")
    figure.legend(*above.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, fontsize="small")
    return figure


def early_list_figure(onsets: ImageOnsets, unit: str) -> Figure:
    """Precision and recall of each audit's list of exposed members, for the list at the last audit; whiskers are intervals."""
    figure = Figure(figsize=(6.0, 3.6), layout="constrained")
    axis = figure.subplots()
    lines = {
        "recall: of those that end exposed, listed already": onsets.recall,
        "precision: of those listed, end exposed": onsets.precision,
    }
    for place, (label, values) in enumerate(lines.items()):
        shown = [(time, value) for time, value in zip(onsets.times, values) if value is not None]
        if shown:
            whiskered(axis, *map(list, zip(*shown)), place=place, count=len(lines), label=label)
    chance = float(onsets.ends_exposed[onsets.is_member].double().mean())
    axis.axhline(chance, color="0.6", linewidth=0.8, linestyle=":", label="precision of a list drawn at random")
    axis.set(title="How early the final list was known", xlabel=unit, ylabel="share of members", ylim=(-0.02, 1.04))
    legend_below(axis, columns=1)
    return figure


def _columns(num_audits: int) -> list[tuple[int, int]]:
    """First and last audit of each column."""
    each = math.ceil(num_audits / MAX_COLUMNS)
    return [(first, min(first + each, num_audits) - 1) for first in range(0, num_audits, each)]


def _label(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}\N{EN DASH}{last}"


def _draw_images(axis: Axes, column: int, found: list[int], each: int, images: Images) -> None:
    """Images from the top, `each` beside each other."""
    if not found:
        return
    width, margin = 0.94 / each, 0.03 / each
    for place, image in enumerate(images(torch.tensor(found))):
        left, top = column - 0.47 + place % each * width, place // each
        extent = (left + margin, left + width - margin, top + 0.97, top + 0.03)
        axis.imshow(image_grid(image[None]), extent=extent, aspect="auto", interpolation="nearest")
