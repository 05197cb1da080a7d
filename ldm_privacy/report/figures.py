"""Pictures of an audit, by matplotlib; colours from the Okabe-Ito palette, which the colour-blind can tell apart."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ldm_privacy.audit import AuditReport
from ldm_privacy.metrics import roc_curve
from ldm_privacy.types import AuditKey, Image

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = ("-", "--", ":", "-.")


def roc_figure(report: AuditReport, *, title: str) -> Figure:
    """ROC curves of the reporting half on logarithmic axes: a panel per attack, a line per mask."""
    figure, axes = panels(_attacks(report), title)
    for attack, axis in axes.items():
        rows = [row for row in report.rows if row.key.attack == attack]
        floor = 1 / len(report.reported_membership)
        for place, row in enumerate(rows):
            fpr, tpr, _ = roc_curve(report.reported_scores(row.key), report.reported_membership)
            axis.plot(
                fpr.clamp_min(floor),
                tpr.clamp_min(floor),
                color=PALETTE[place % len(PALETTE)],
                linestyle=STYLES[place % len(STYLES)],
                label=f"{row.key.mask} ({row.metrics.auroc.value:.3f})",
            )
        diagonal = np.geomspace(floor, 1, 50)
        axis.plot(diagonal, diagonal, color="0.7", linewidth=0.8)
        axis.set(xscale="log", yscale="log", xlim=(floor, 1), ylim=(floor, 1.05), title=attack)
        axis.set(xlabel="false-positive rate (held-out called member)", ylabel="true-positive rate")
        axis.legend(title="mask (AUROC)", loc="lower right", fontsize="small")
    return figure


def auroc_by_timestep_figure(report: AuditReport, *, title: str) -> Figure:
    """AUROC of the reporting half over timesteps: a panel per attack, a line per mask, the chosen timestep marked."""
    figure, axes = panels(_attacks(report), title)
    for attack, axis in axes.items():
        for place, row in enumerate(row for row in report.rows if row.key.attack == attack):
            timesteps = report.data.timesteps[attack]
            colour = PALETTE[place % len(PALETTE)]
            if not timesteps or row.timestep is None:
                axis.axhline(row.metrics.auroc.value, color=colour, label=row.key.mask)
                continue
            style = STYLES[place % len(STYLES)]
            axis.plot(timesteps, row.auroc_by_timestep, color=colour, linestyle=style, label=row.key.mask)
            axis.plot(row.timestep, row.metrics.auroc.value, "o", color=colour, markersize=5)
        axis.axhline(0.5, color="0.7", linewidth=0.8)
        axis.set(title=attack, xlabel="timestep (dot: chosen on the calibration half)", ylabel="AUROC")
        axis.legend(title="mask", fontsize="small")
    return figure


def memorization_figure(
    history: Mapping[tuple[int, str], float], keys: Sequence[AuditKey], onset: tuple[AuditKey, int] | None
) -> Figure:
    """AUROC over epochs with its interval: a panel per attack, a line per mask, the onset marked.

    Args:
        history: (epoch, series) -> value, as metrics.csv holds the denoiser's stage.
        keys: What to draw.
        onset: Attack and mask of the onset and its epoch, a vertical line in that attack's panel; None = no onset.
    """
    attacks = list(dict.fromkeys(key.attack for key in keys))
    figure, axes = panels(attacks, "Memorization: AUROC of each audit, with its interval")
    for attack, axis in axes.items():
        for place, key in enumerate(key for key in keys if key.attack == attack):
            prefix = f"memorization/{key}/auroc"
            epochs = sorted(epoch for epoch, series in history if series == prefix)
            value, lower, upper = ([history[epoch, prefix + bound] for epoch in epochs] for bound in ("", "_lower", "_upper"))
            colour, style = PALETTE[place % len(PALETTE)], STYLES[place % len(STYLES)]
            axis.plot(epochs, value, color=colour, linestyle=style, marker=".", label=key.mask)
            axis.fill_between(epochs, lower, upper, color=colour, alpha=0.12, linewidth=0)
        axis.axhline(0.5, color="0.7", linewidth=0.8)
        if onset is not None and onset[0].attack == attack:
            axis.axvline(onset[1], color="0.3", linewidth=0.8, linestyle=":")
            axis.annotate(f"onset {onset[1]}", (onset[1], 0.02), xycoords=("data", "axes fraction"), fontsize="small")
        axis.set(title=attack, xlabel="epoch", ylabel="AUROC", ylim=(None, 1.01))
        axis.legend(title="mask", fontsize="small", loc="upper left")
    return figure


def image_grid(image: Image, *, columns: int | None = None) -> np.ndarray:
    """Images in [-1, 1] side by side as one uint8 array (height, width, 3), a pixel of white between them."""
    pixels = ((image.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round().byte()
    if pixels.shape[1] == 1:
        pixels = pixels.expand(-1, 3, -1, -1)
    return _tile(pixels, columns or math.ceil(math.sqrt(len(pixels))))


def _tile(pixels: Tensor, columns: int) -> np.ndarray:
    count, channels, height, width = pixels.shape
    rows = math.ceil(count / columns)
    canvas = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1, channels), 255, np.uint8)
    for place, picture in enumerate(pixels):
        top, left = place // columns * (height + 1), place % columns * (width + 1)
        canvas[top : top + height, left : left + width] = picture.permute(1, 2, 0).numpy()
    return canvas


def _attacks(report: AuditReport) -> list[str]:
    return list(dict.fromkeys(row.key.attack for row in report.rows))


def panels(names: list[str], title: str) -> tuple[Figure, dict[str, Axes]]:
    """A figure with a panel for each name, at most three beside each other."""
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(4.2 * columns, 3.8 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis in axes[len(names) :]:
        axis.remove()
    figure.suptitle(title)
    return figure, dict(zip(names, axes))
