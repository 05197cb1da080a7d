"""Pictures of influence and of the masks that are made of it."""

from collections.abc import Iterable, Mapping

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ldm_privacy.report.figures.base import panels, show_image
from ldm_privacy.types import Image

MIN_DECADES = 0.1
"""A colour scale spans at least this much, so that rounding noise of a flat map is not drawn as structure."""


def influence_map_figure(mean_influence: Tensor, num_samples: int) -> Figure:
    """The mean influence of each latent position, a panel per channel, one logarithmic colour scale.

    Args:
        mean_influence: (channels, height, width) float64, >= 0. Positions without any influence are grey.
        num_samples: That it is the mean of.
    """
    mean = mean_influence.cpu().numpy()
    names = [f"channel {channel}: mean {each.mean():.3g}" for channel, each in enumerate(mean)]
    title = f"Influence by latent channel and position ({num_samples} samples)"
    figure, axes = panels(names, title, columns=4, size=(2.5, 2.8))
    for name, axis in axes.items():
        axis.set_title(name, fontsize="medium")
        axis.locator_params(nbins=4, integer=True)
        axis.set(xlabel="latent column", ylabel="latent row")
    _draw(axes.values(), *_log10(mean), label=r"$\log_{10}$ of mean influence $\|\partial D / \partial z_i\|^2$")
    return figure


def mask_frequency_figure(shares: Mapping[str, Tensor], num_samples: int) -> Figure:
    """The share of samples whose mask keeps each latent dimension: a row per mask, a column per channel.

    Args:
        shares: Label of a mask -> (channels, height, width) float64, the share.
        num_samples: Of how many samples.
    """
    share = np.stack([each.numpy() for each in shares.values()])
    channels = share.shape[1]
    figure = Figure(figsize=(max(3.8, 1.7 * channels + 1.6), 1.75 * len(shares) + 0.8), layout="constrained")
    axes = figure.subplots(len(shares), channels, squeeze=False)
    for (row, channel), axis in np.ndenumerate(axes):
        heading = "" if row else f"channel {channel}\n"
        axis.set_title(f"{heading}{share[row, channel].mean():.0%} kept", fontsize="medium")
        axis.set(xticks=[], yticks=[])
    for axis, label in zip(axes[:, 0], shares):
        axis.set_ylabel(label)
    _draw(axes.flat, share.reshape(-1, *share.shape[2:]), 0, 1, label="share of samples")
    figure.suptitle(f"How often masks keep a dimension\n({num_samples} samples)")
    return figure


def pixel_influence_figure(images: Image, pixel_influence: Tensor) -> Figure:
    """Decoded images, each above its per-pixel influence, on one logarithmic colour scale.

    Args:
        images: (samples, image_channels, image_height, image_width) in [-1, 1], decoded.
        pixel_influence: (samples, image_height, image_width), >= 0. Pixels without any influence are grey.
    """
    influence, count = pixel_influence.double().numpy(), len(images)
    figure = Figure(figsize=(max(4.0, 1.5 * count + 1.2), 3.9), layout="constrained")
    above, below = figure.subplots(2, count, squeeze=False)
    for sample in range(count):
        show_image(above[sample], images[sample])
        below[sample].set(xlabel=f"mean {influence[sample].mean():.3g}", xticks=[], yticks=[])
    above[0].set_ylabel("decoded")
    below[0].set_ylabel(r"influence $\|\partial D_p / \partial z\|^2$")
    _draw(below, *_log10(influence), label=r"$\log_{10}$ of influence")
    figure.suptitle(f"Influence by pixel ({count} samples)")
    return figure


def _draw(axes: Iterable[Axes], maps: np.ndarray, low: float, high: float, *, label: str) -> None:
    """A map on each axis and one colour bar for the figure; NaN is grey."""
    colours = colormaps["cividis"].with_extremes(bad="0.6")
    drawn = [axis.imshow(value, vmin=low, vmax=high, cmap=colours) for axis, value in zip(axes, maps)]
    drawn[0].figure.colorbar(drawn[0], ax=drawn[0].figure.axes, label=label)


def _log10(value: np.ndarray) -> tuple[np.ndarray, float, float]:
    """log10 with NaN where the value is 0, and the bounds of its colour scale."""
    logarithm = np.full(value.shape, np.nan)
    np.log10(value, out=logarithm, where=value > 0)
    if np.isnan(logarithm).all():
        return logarithm, 0.0, 1.0
    low, high = float(np.nanmin(logarithm)), float(np.nanmax(logarithm))
    missing = max(0.0, MIN_DECADES - (high - low)) / 2
    return logarithm, low - missing, high + missing
