"""Pictures of local distortion: who has how much of it, and what it does to the attack."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ldm_privacy.metrics import QuartileAuroc
from ldm_privacy.report.figures.base import PALETTE, numbers, show_image
from ldm_privacy.types import Image

MEMBER_COLOUR, HELDOUT_COLOUR = PALETTE[1], PALETTE[0]
QUARTILES = ("lowest quartile", "second quartile", "third quartile", "highest quartile")
MAX_EXTREMES = 4


def distortion_figure(distortion: Tensor, is_member: Tensor, images: Image) -> Figure:
    """Violins of local distortion, members and held-out, beside the images where it is highest and lowest.

    Args:
        distortion: (samples,).
        is_member: (samples,) bool.
        images: (samples, image_channels, image_height, image_width) in [-1, 1].

    Returns:
        One axis with the violins, then up to four images of the highest and as many of the lowest distortion among all
        samples, each with its distortion and its set.

    Raises:
        ValueError: Lengths differ, or there are no samples.
    """
    value, member = numbers(distortion), is_member.detach().cpu().numpy()
    if not len(value) == len(member) == len(images) or not len(value):
        raise ValueError(f"{len(value)} distortions, {len(member)} labels and {len(images)} images don't belong together")
    order = np.argsort(value, kind="stable")
    num_shown = max(1, min(MAX_EXTREMES, len(value) // 2))
    figure = Figure(figsize=(3.4 + 1.35 * num_shown, 4.2), layout="constrained")
    grid = figure.add_gridspec(2, 1 + num_shown, width_ratios=[2.4] + [1] * num_shown)
    _violins(figure.add_subplot(grid[:, 0]), value, member)
    for row, (name, chosen) in enumerate((("highest", order[::-1][:num_shown]), ("lowest", order[:num_shown]))):
        for column, sample in enumerate(chosen):
            axis = figure.add_subplot(grid[row, 1 + column])
            show_image(axis, images[int(sample)])
            colour = MEMBER_COLOUR if member[sample] else HELDOUT_COLOUR
            axis.set_xlabel(
                f"{value[sample]:.2f}".replace("-", "\N{MINUS SIGN}") + f"\n{_set_name(member[sample])}", color=colour
            )
            if not column:
                axis.set_ylabel(name)
    figure.suptitle(f"Local distortion of {len(value)} samples")
    return figure


def quartile_figure(quartiles: QuartileAuroc, timesteps: Sequence[int], *, title: str) -> Figure:
    """AUROC by timestep in each quartile, lowest to highest: a panel per quartile with its interval as a band.

    The other quartiles are repeated in grey. Where there is only one number for all timesteps, or one timestep: a single
    panel, AUROC with its interval over quartiles. Quartiles with no estimate are left out.

    Args:
        quartiles: From `auroc_by_quartile`.
        timesteps: Of its rows; empty where the attack has one number for all timesteps.
        title: Of the figure.

    Raises:
        ValueError: Timesteps that don't fit the rows.
    """
    if len(quartiles.auroc) != max(1, len(timesteps)):
        raise ValueError(f"{len(timesteps)} timesteps for {len(quartiles.auroc)} rows of quartiles")
    value, lower, upper = (
        np.array([[getattr(estimate, bound) for estimate in row] for row in quartiles.auroc]).T
        for bound in ("value", "lower", "upper")
    )
    counts = [
        f"{members} members, {heldout} held-out" for members, heldout in zip(quartiles.num_members, quartiles.num_heldout)
    ]
    interval = f"{quartiles.confidence:.0%} interval"
    if len(quartiles.auroc) == 1:
        figure = Figure(figsize=(6.4, 3.8), layout="constrained")
        axis = figure.subplots()
        labels = [f"{name}\n{count.replace(', ', chr(10))}" for name, count in zip(QUARTILES, counts)]
        for place, colour in enumerate(PALETTE[:4]):
            bar = [[value[place, 0] - lower[place, 0]], [upper[place, 0] - value[place, 0]]]
            axis.errorbar([place], value[place], yerr=bar, fmt="o", color=colour, capsize=4)
        axis.set_xticks(range(4), labels, fontsize="small")
        where = "".join(f" at timestep {timestep}" for timestep in timesteps)
        axis.set(xlim=(-0.5, 3.5), ylabel=f"AUROC{where} ({interval})")
        _chance_line(axis)
    else:
        figure = Figure(figsize=(11, 3.4), layout="constrained")
        for place, axis in enumerate(figure.subplots(1, 4, sharex=True, sharey=True)):
            axis.plot(timesteps, np.delete(value, place, axis=0).T, color="0.65", linewidth=0.8)
            axis.fill_between(timesteps, lower[place], upper[place], color=PALETTE[place], alpha=0.2, linewidth=0)
            axis.plot(timesteps, value[place], color=PALETTE[place], marker=".")
            axis.set_title(f"{QUARTILES[place]}\n{counts[place]}", fontsize="medium")
            axis.set_ylabel("" if place else "AUROC")
        for axis in figure.axes:
            _chance_line(axis)
        figure.supxlabel(f"timestep (band: {interval}, grey: the other quartiles)", fontsize="medium")
    figure.suptitle(title)
    return figure


def _violins(axis: Axes, value: np.ndarray, member: np.ndarray) -> None:
    ticks = []
    for place, (is_member, colour) in enumerate(((True, MEMBER_COLOUR), (False, HELDOUT_COLOUR))):
        of_set = value[member == is_member]
        ticks.append(f"{_set_name(is_member)}\n({len(of_set)})")
        if not len(of_set):
            continue
        for body in axis.violinplot([of_set], [place], widths=0.8, showextrema=False)["bodies"]:  # type: ignore[attr-defined]
            body.set(facecolor=colour, edgecolor=colour, alpha=0.35)
        low, median, high = np.quantile(of_set, [0.25, 0.5, 0.75])
        axis.vlines(place, low, high, color=colour, linewidth=5)
        axis.plot(place, median, "o", color="white", markeredgecolor=colour, markersize=6)
    axis.set_xticks([0, 1], ticks)
    axis.set(xlim=(-0.6, 1.6), ylabel=r"local distortion: sum of $\ln\,\sigma_k(J)$ (nats)")
    axis.set_title("bar: quartiles, dot: median", fontsize="small")


def _chance_line(axis: Axes) -> None:
    """AUROC 0.5, where the curves come near it: they keep their scale."""
    bounds = axis.get_ylim()
    axis.axhline(0.5, color="0.4", linewidth=0.8, linestyle=":")
    axis.set_ylim(bounds)


def _set_name(is_member: bool) -> str:
    return "member" if is_member else "held-out"
