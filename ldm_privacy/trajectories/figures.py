"""Pictures of guided trajectories: weights over the steps, deviation against replication, clean predictions beside images."""

import textwrap

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ldm_privacy.pictures import HELDOUT_COLOUR, MEMBER_COLOUR, PALETTE, image_grid
from ldm_privacy.trajectories.deviation import memoriser_coefficients
from ldm_privacy.trajectories.record import TrajectoryReport

NAMES = {"repeated": "planted duplicates", "members": "members", "heldout": "held-out"}
ONE = {"repeated": "planted duplicate", "members": "member", "heldout": "held-out"}
COLOURS = {"repeated": PALETTE[3], "members": MEMBER_COLOUR, "heldout": HELDOUT_COLOUR}
MARKERS = {"repeated": "D", "members": "o", "heldout": "s"}
BAND = 0.8
"""Share of the captions that a band holds."""
LETTERS = 30
"""Of a caption's line beside its pictures."""


def trajectory_figures(report: TrajectoryReport) -> dict[str, Figure]:
    """All of them by name; the pictures of captions where any were kept."""
    figures = {"trajectory_weights": weights_figure(report), "trajectory_replication": replication_figure(report)}
    if report.most:
        figures["trajectory_images"] = images_figure(report)
    return figures


def weights_figure(report: TrajectoryReport) -> Figure:
    """w0 and wT over the states, a column for each guidance scale: mean and band over captions, theory, ideal memoriser."""
    scales, steps = list(report.guided), range(1, len(report.abar))
    figure = Figure(figsize=(max(5.0, 3.6 * len(scales)), 6.4), layout="constrained")
    axes = figure.subplots(2, len(scales), sharex=True, squeeze=False)
    abar = report.abar[1:].double()
    for column, scale in enumerate(scales):
        guided, ideal = report.guided[scale], memoriser_coefficients(report.abar, scale)
        for axis, value, theory, memoriser in (
            (axes[0, column], guided.clean, abar.sqrt(), ideal.clean),
            (axes[1, column], guided.noise, (1 - abar).sqrt(), ideal.noise),
        ):
            for group in _present(report):
                _banded(axis, value[report.of_group(group)], NAMES[group], COLOURS[group])
            axis.plot(steps, theory, color="0.1", linestyle="--", linewidth=1.2, label="theory")
            axis.autoscale(False)  # an ideal memoriser's w0 is as large as the guidance: the view is that of the captions
            axis.plot(steps, memoriser[:, 0], color="0.4", linestyle=":", linewidth=1.2, label="ideal memoriser")
        axes[0, column].set_title(f"guidance {scale:g}")
        axes[1, column].set_xlabel("step")
    axes[0, 0].set_ylabel("w0, of the training latent")
    axes[1, 0].set_ylabel("wT, of the starting noise")
    figure.suptitle(f"Where trajectories are, {report.time} (bands: {BAND:.0%} of the captions)")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False, fontsize="small")
    return figure


def replication_figure(report: TrajectoryReport) -> Figure:
    """D1 of each caption against the similarity of its generations to its own image, at the largest scale: of all states, of
    the first fifth, and with another member's latent in place of the own one.
    """
    scale, guided = report.top, report.guided[report.top]
    panels = {
        "D1": guided.d1,
        "D1 of the first fifth of the steps": guided.d1_early,
        "D1 with another member's latent": guided.d1_wrong,
    }
    figure = Figure(figsize=(10.8, 4.2), layout="constrained")
    for axis, (name, value) in zip(figure.subplots(1, 3, sharey=True), panels.items()):
        for group in _present(report):
            rows = report.of_group(group)
            look = {"color": COLOURS[group], "marker": MARKERS[group], "s": 18, "alpha": 0.75, "linewidths": 0}
            axis.scatter(value[rows], guided.similarity[rows], label=NAMES[group], **look)
        axis.set(xlabel=name, title=_correlation(value, guided.similarity))
    first = figure.axes[0]
    first.set_ylabel("similarity to the own image")
    figure.suptitle(f"Deviation and replication of each caption, guidance {scale:g}, {report.time}")
    figure.legend(*first.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize="small")
    return figure


def images_figure(report: TrajectoryReport) -> Figure:
    """A row for each of the captions that are memorized most and least: own image, clean predictions, generated images, and the
    audited member that is nearest to each of these.
    """
    rows = [*report.most, *report.least]
    num_early, num_seeds = len(rows[0].early), len(rows[0].generated)
    heads = [
        "own image",
        *(f"step {step}" for step in range(1, num_early + 1)),
        *["generated"] * num_seeds,
        *["nearest"] * num_seeds,
    ]
    figure = Figure(figsize=(1.05 * len(heads) + 2.4, 1.2 * len(rows) + 0.7), layout="constrained")
    axes = figure.subplots(len(rows), 1, squeeze=False)[:, 0]
    for axis, shown in zip(axes, rows):
        images = torch.cat([shown.own, shown.early, shown.generated, shown.nearest])
        axis.imshow(image_grid(images, columns=len(heads)), interpolation="nearest")
        label = "\n".join(textwrap.wrap(_label(report, shown.row), LETTERS))
        axis.set_ylabel(label, rotation=0, ha="right", va="center", fontsize="small")
        similarity = float(report.guided[report.top].similarity[shown.row])
        axis.annotate(f"{similarity:.2f}", (1.01, 0.5), xycoords="axes fraction", va="center", fontsize="small")
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    width = rows[0].own.shape[-1] + 1  # a pixel between images
    axes[0].set_xticks([(place + 0.5) * width - 1 for place in range(len(heads))], heads, fontsize="small")
    axes[0].tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0)
    figure.suptitle(f"Memorized most (above) and least (below), guidance {report.top:g}, {report.time}")
    return figure


def _label(report: TrajectoryReport, row: int) -> str:
    words = f"sample {int(report.sample_index[row])}" if report.words is None else report.words[row]
    return textwrap.shorten(words, 3 * LETTERS) + f" ({ONE[report.group[row]]})"


def _present(report: TrajectoryReport) -> list[str]:
    return [group for group in NAMES if group in report.group]


def _banded(axis: Axes, value: Tensor, name: str, colour: str) -> None:
    """(captions, steps): their mean, and the band of their middle ones."""
    steps = range(1, value.shape[1] + 1)
    ends = torch.tensor([(1 - BAND) / 2, (1 + BAND) / 2], dtype=value.dtype)
    lower, upper = torch.quantile(value, ends, dim=0)
    axis.plot(steps, value.mean(0), color=colour, linewidth=1.5, label=name)
    axis.fill_between(steps, lower, upper, facecolor=(colour, 0.16), linewidth=0)


def _correlation(one: Tensor, other: Tensor) -> str:
    if len(one) < 2 or one.max() == one.min() or other.max() == other.min():
        return ""
    return f"r = {float(torch.corrcoef(torch.stack([one, other]))[0, 1]):.2f}"
