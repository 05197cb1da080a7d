"""Simple features of images that no model takes part in: what a blind classifier may tell two image sets apart by."""

from collections.abc import Callable, Iterator
from itertools import combinations

import torch
from torch import Tensor
from torch.nn import functional

from ldm_privacy.errors import UserError
from ldm_privacy.types import Image

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
NUM_BANDS = 4
NUM_BINS = 8
THUMBNAIL = 4
BLOCK = 8
_CHANNEL_NAMES = {1: ("grey",), 3: ("red", "green", "blue")}
Named = Iterator[tuple[str, Tensor]]


def image_features(images: Image) -> dict[str, Tensor]:
    """About 115 numbers per RGB image (45 per grey one): colours, contrast, sharpness, frequencies, compression, layout.

    Per channel: mean, standard deviation, minimum, maximum, quantiles, an 8-bin histogram over [-1, 1] and a 4x4
    average-pooled thumbnail. Per image: correlations of channels, mean absolute horizontal and vertical difference, Laplacian
    energy, log energy in four rings of the Fourier transform, step across the borders of 8x8 blocks beside the other steps
    (JPEG; only for sides of at least 16), border minus centre, share of pixels equal to their right neighbour in every channel,
    shares of black and white values.

    Each sample's features depend on its image alone. No randomness, no network passes; about 0.5 ms per 32x32 RGB image.

    Args:
        images: (samples, channels, height, width) in [-1, 1], sides of at least 2 pixels.

    Returns:
        Name, as a person would say it ("mean of red") -> (samples,) float32.

    Raises:
        UserError: The images are smaller than 2x2 pixels.
    """
    if min(images.shape[2:]) < 2:
        raise UserError(f"images of {images.shape[2]}x{images.shape[3]} pixels have no simple features; use 2x2 or larger.")
    return {name: value for group in _GROUPS for name, value in group(images.float())}


def _channel_names(images: Image) -> tuple[str, ...]:
    count = images.shape[1]
    return _CHANNEL_NAMES.get(count, tuple(f"channel {channel}" for channel in range(count)))


def _moments(images: Image) -> Named:
    quantiles = torch.tensor(QUANTILES)
    for channel, name in enumerate(_channel_names(images)):
        flat = images[:, channel].flatten(1)
        yield f"mean of {name}", flat.mean(dim=1)
        yield f"standard deviation of {name}", flat.std(dim=1, correction=0)
        yield f"minimum of {name}", flat.amin(dim=1)
        yield f"maximum of {name}", flat.amax(dim=1)
        places = (quantiles * (flat.shape[1] - 1)).round().long()
        chosen = flat.sort(dim=1).values[:, places]  # a copy: a view of a column would keep all of them
        for share, column in zip(QUANTILES, chosen.unbind(1)):
            yield f"{share:.0%} quantile of {name}", column


def _correlations(images: Image) -> Named:
    centred = images.flatten(2) - images.flatten(2).mean(dim=2, keepdim=True)
    unit = functional.normalize(centred, dim=2, eps=1e-6)
    for (first, first_name), (second, second_name) in combinations(enumerate(_channel_names(images)), 2):
        yield f"correlation of {first_name} and {second_name}", (unit[:, first] * unit[:, second]).sum(dim=1)


def _sharpness(images: Image) -> Named:
    across, down = images.diff(dim=3).abs(), images.diff(dim=2).abs()
    yield "mean horizontal step", across.flatten(1).mean(dim=1)
    yield "mean vertical step", down.flatten(1).mean(dim=1)
    padded = functional.pad(images, (1, 1, 1, 1), mode="replicate")
    laplacian = (
        padded[..., 1:-1, :-2] + padded[..., 1:-1, 2:] + padded[..., :-2, 1:-1] + padded[..., 2:, 1:-1] - 4 * images
    ).square()
    yield "Laplacian energy", laplacian.flatten(1).mean(dim=1)
    yield "pixels equal to their right neighbour", (across.amax(dim=1) == 0).float().flatten(1).mean(dim=1)
    if min(images.shape[2:]) >= 2 * BLOCK:
        for name, steps in (("horizontal", across), ("vertical", down.transpose(2, 3))):
            at_border = torch.arange(1, steps.shape[3] + 1) % BLOCK == 0
            border, inside = (steps[..., where].flatten(1).mean(dim=1) for where in (at_border, ~at_border))
            yield f"{name} step across 8x8 blocks", (border + 1e-3).log() - (inside + 1e-3).log()


def _frequencies(images: Image) -> Named:
    height, width = images.shape[2:]
    power = torch.fft.rfft2(images, norm="ortho").abs().square().mean(dim=1)
    vertical = torch.fft.fftfreq(height)[:, None]
    horizontal = torch.fft.rfftfreq(width)[None]
    # Twice the larger of both frequencies: 1 is the finest pattern, so every ring has members at any size.
    radius = 2 * torch.maximum(vertical.abs(), horizontal)
    ring = (radius * NUM_BANDS).ceil().clamp(max=NUM_BANDS)
    for band in range(1, NUM_BANDS + 1):
        inside = power[:, ring == band]
        if inside.shape[1]:
            yield f"Fourier energy, ring {band} of {NUM_BANDS}", (inside.mean(dim=1) + 1e-6).log()


def _layout(images: Image) -> Named:
    height, width = images.shape[2:]
    rows, columns = max(1, height // 8), max(1, width // 8)
    centre = torch.zeros(height, width, dtype=torch.bool)
    centre[rows : height - rows, columns : width - columns] = True
    if centre.any():
        yield "border minus centre", images[..., ~centre].flatten(1).mean(dim=1) - images[..., centre].flatten(1).mean(dim=1)
    thumbnail = functional.adaptive_avg_pool2d(images, (min(THUMBNAIL, height), min(THUMBNAIL, width)))
    for channel, name in enumerate(_channel_names(images)):
        for row in range(thumbnail.shape[2]):
            for column in range(thumbnail.shape[3]):
                yield (
                    f"{name} at row {row + 1}, column {column + 1} of {thumbnail.shape[2]}x{thumbnail.shape[3]}",
                    thumbnail[:, channel, row, column],
                )


def _histograms(images: Image) -> Named:
    # The centre of bin b is -1 + (2 b + 1) / bins; values outside [-1, 1] count in the outer bins.
    place = ((images + 1) * (NUM_BINS / 2)).floor().clamp(0, NUM_BINS - 1)
    for channel, name in enumerate(_channel_names(images)):
        flat = place[:, channel].flatten(1)
        for index in range(NUM_BINS):
            yield f"histogram of {name}, bin {index + 1} of {NUM_BINS}", (flat == index).float().mean(dim=1)
    yield "share of black values", (images <= -1).float().flatten(1).mean(dim=1)
    yield "share of white values", (images >= 1).float().flatten(1).mean(dim=1)


_GROUPS: tuple[Callable[[Image], Named], ...] = (_moments, _correlations, _sharpness, _frequencies, _layout, _histograms)
