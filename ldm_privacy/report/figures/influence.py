"""Pictures of influence and of the masks that are made of it."""

import math
from collections.abc import Mapping

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from ldm_privacy.report.figures.base import bare, numbers, show_image
from ldm_privacy.types import Image, Influence, KeepMask

MAX_SAMPLES = 6
MIN_DECADES = 0.1
"""A colour scale spans at least this much, so that rounding noise of a flat map is not drawn as structure."""


def influence_map_figure(influence: Influence) -> Figure:
    """The mean influence of each latent position, a panel per channel, one logarithmic colour scale.

    Args:
        influence: (samples, channels, height, width), >= 0. Positions without any influence are grey.
    """
    mean = numbers(influence).mean(0)
    columns = min(4, len(mean))
    rows = math.ceil(len(mean) / columns)
    figure = Figure(figsize=(max(5.0, 2.1 * columns + 1.3), 2.3 * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis in axes[len(mean) :]:
        axis.remove()
    logarithm, low, high = _log10(mean)
    for channel, axis in enumerate(axes[: len(mean)]):
        picture = axis.imshow(logarithm[channel], vmin=low, vmax=high, cmap=_colours())
        axis.set_title(f"channel {channel}: mean {mean[channel].mean():.3g}", fontsize="medium")
        _latent_ticks(axis, ylabel="latent row" if channel % columns == 0 else "", xlabel="latent column")
    label = r"$\log_{10}$ of mean influence $\|\partial D / \partial z_i\|^2$"
    figure.colorbar(picture, ax=axes[: len(mean)], label=label)
    figure.suptitle(f"Influence by latent channel and position ({len(influence)} samples)")
    return figure


def mask_frequency_figure(masks: Mapping[str, KeepMask]) -> Figure:
    """The share of samples whose mask keeps each latent dimension: a row per mask, a column per channel.

    Args:
        masks: Label -> keep mask (samples, channels, height, width), of the same samples.

    Raises:
        ValueError: No masks, or masks of different shapes.
    """
    shapes = {tuple(mask.shape) for mask in masks.values()}
    if len(shapes) != 1:
        raise ValueError(f"masks of one shape are needed, got {sorted(shapes)}")
    num_samples, channels, _, _ = shapes.pop()
    figure = Figure(figsize=(max(3.8, 1.7 * channels + 1.6), 1.75 * len(masks) + 0.8), layout="constrained")
    axes = figure.subplots(len(masks), channels, squeeze=False)
    for row, (label, mask) in enumerate(masks.items()):
        share = numbers(mask).mean(0)
        for channel, axis in enumerate(axes[row]):
            picture = axis.imshow(share[channel], vmin=0, vmax=1, cmap=_colours())
            heading = "" if row else f"channel {channel}\n"
            axis.set_title(f"{heading}{share[channel].mean():.0%} kept", fontsize="medium")
            bare(axis)
            if not channel:
                axis.set_ylabel(label)
    figure.colorbar(picture, ax=axes, label="share of samples")
    figure.suptitle(f"How often masks keep a dimension\n({num_samples} samples)")
    return figure


def pixel_influence_figure(images: Image, pixel_influence: Tensor) -> Figure:
    """Decoded images, each above its per-pixel influence, on one logarithmic colour scale; the first six samples.

    Args:
        images: (samples, image_channels, image_height, image_width) in [-1, 1], decoded.
        pixel_influence: (samples, image_height, image_width), >= 0. Pixels without any influence are grey.

    Raises:
        ValueError: Shapes that don't fit, or no samples.
    """
    if (len(images), *images.shape[2:]) != tuple(pixel_influence.shape) or not len(images):
        raise ValueError(f"images {tuple(images.shape)} and pixel influence {tuple(pixel_influence.shape)} don't fit")
    influence = numbers(pixel_influence[:MAX_SAMPLES])
    logarithm, low, high = _log10(influence)
    figure = Figure(figsize=(max(4.0, 1.5 * len(influence) + 1.2), 3.9), layout="constrained")
    axes = figure.subplots(2, len(influence), squeeze=False)
    for sample in range(len(influence)):
        show_image(axes[0, sample], images[sample])
        picture = axes[1, sample].imshow(logarithm[sample], vmin=low, vmax=high, cmap=_colours())
        axes[1, sample].set_xlabel(f"mean {influence[sample].mean():.3g}")
        bare(axes[1, sample])
    axes[0, 0].set_ylabel("decoded")
    axes[1, 0].set_ylabel(r"influence $\|\partial D_p / \partial z\|^2$")
    figure.colorbar(picture, ax=axes, label=r"$\log_{10}$ of influence")
    figure.suptitle(f"Influence by pixel ({len(influence)} of {len(images)} samples)")
    return figure


def _latent_ticks(axis: Axes, *, xlabel: str, ylabel: str) -> None:
    for scale in (axis.xaxis, axis.yaxis):
        scale.set_major_locator(MaxNLocator(4, integer=True))
    axis.set(xlabel=xlabel, ylabel=ylabel)


def _log10(value: np.ndarray) -> tuple[np.ndarray, float, float]:
    """log10 with NaN where the value is 0, and the bounds of its colour scale."""
    logarithm = np.full(value.shape, np.nan)
    np.log10(value, out=logarithm, where=value > 0)
    if np.isnan(logarithm).all():
        return logarithm, 0.0, 1.0
    low, high = float(np.nanmin(logarithm)), float(np.nanmax(logarithm))
    missing = max(0.0, MIN_DECADES - (high - low)) / 2
    return logarithm, low - missing, high + missing


def _colours() -> Colormap:
    return colormaps["cividis"].with_extremes(bad="0.6")
