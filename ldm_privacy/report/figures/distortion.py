"""Pictures of local distortion: who has how much of it, and what it does to the attack."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ldm_privacy.metrics import QuartileAuroc
from ldm_privacy.pictures import HELDOUT_COLOUR, MEMBER_COLOUR, PALETTE
from ldm_privacy.report.figures.base import banded, show_image
from ldm_privacy.types import Images

SIDES = {True: ("member", MEMBER_COLOUR), False: ("held-out", HELDOUT_COLOUR)}
QUARTILES = ("lowest quartile", "second quartile", "third quartile", "highest quartile")
MAX_EXTREMES = 4


def distortion_figure(distortion: Tensor, is_member: Tensor, images: Images) -> Figure:
    """Violins of local distortion, members and held-out, beside the images where it is highest and lowest.

    Args:
        distortion: (samples,).
        is_member: (samples,) bool.
        images: Places of samples -> images; called for those that are shown.

    Returns:
        One axis with the violins, then up to four images of the highest and as many of the lowest distortion among all
        samples, each with its distortion and its set.
    """
    value, member = distortion.double().numpy(), is_member.numpy()
    order = np.argsort(value, kind="stable")
    num_shown = max(1, min(MAX_EXTREMES, len(value) // 2))
    figure = Figure(figsize=(3.4 + 1.35 * num_shown, 4.2), layout="constrained")
    grid = figure.add_gridspec(2, 1 + num_shown, width_ratios=[2.4] + [1] * num_shown)
    _violins(figure.add_subplot(grid[:, 0]), value, member)
    for row, (name, chosen) in enumerate((("highest", order[::-1][:num_shown]), ("lowest", order[:num_shown]))):
        for column, sample in enumerate(chosen):
            axis = figure.add_subplot(grid[row, 1 + column])
            show_image(axis, images(torch.tensor([sample]))[0])
            side, colour = SIDES[bool(member[sample])]
            axis.set_xlabel(f"{value[sample]:.2f}".replace("-", "\N{MINUS SIGN}") + f"\n{side}", color=colour)
            axis.set_ylabel("" if column else name)
    figure.suptitle(f"Local distortion of {len(value)} samples")
    return figure


def quartile_figure(quartiles: QuartileAuroc, timesteps: Sequence[int], *, title: str) -> Figure:
    """AUROC by timestep in each quartile, lowest to highest: a panel per quartile with its interval as a band.

    The other quartiles are repeated in grey. Quartiles with no estimate are left out.

    Args:
        quartiles: From `auroc_by_quartile`.
        timesteps: Of its rows; empty where the attack has one number for all timesteps.
        title: Of the figure.
    """
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    for place, axis in enumerate(figure.subplots(1, 4, sharex=True, sharey=True)):
        for quartile, areas in enumerate(zip(*quartiles.auroc)):
            if quartile == place:
                banded(axis, timesteps or [0], areas, color=PALETTE[place])
            else:
                axis.plot(
                    timesteps or [0], [area.value for area in areas], color="0.65", linewidth=0.8, marker=".", markersize=2
                )
        axis.axhline(0.5, color="0.4", linewidth=0.8, linestyle=":")
        counts = f"{quartiles.num_members[place]} members, {quartiles.num_heldout[place]} held-out"
        axis.set_title(f"{QUARTILES[place]}\n{counts}", fontsize="medium")
        axis.set_ylabel("" if place else "AUROC")
        if len(timesteps) < 2:
            axis.set_xticks(timesteps)
    over = "timestep" if timesteps else "one number for all timesteps"
    figure.supxlabel(f"{over} (colour: {quartiles.confidence:.0%} interval, grey: the other quartiles)", fontsize="medium")
    figure.suptitle(f"{title} by quartile of local distortion")
    return figure


def _violins(axis: Axes, value: np.ndarray, member: np.ndarray) -> None:
    ticks = []
    for place, (is_member, (name, colour)) in enumerate(SIDES.items()):
        of_set = value[member == is_member]
        ticks.append(f"{name}\n({len(of_set)})")
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
