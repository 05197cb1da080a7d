"""Patch sliced Wasserstein distance: do the patches of generated images have the law of those of real ones, at every scale?"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from ldm_privacy.quality.distance import Distance, deviations
from ldm_privacy.quality.pyramid import halved
from ldm_privacy.randomness import normal
from ldm_privacy.types import Image

PATCH = 7
"""Pixels of a patch's side, as published."""
SMALLEST = 8
"""No scale has fewer pixels a side, unless the images have."""
_PER_SIDE = 4
"""Places of patches along a side, at most."""


def patches(image: Image) -> list[Tensor]:
    """The patches of every band of the images' Laplacian pyramid, finest first: (batch, patches, numbers of a patch) each.

    A band is the image less its half-sized copy enlarged again, the last one the smallest copy itself (8 pixels a side or a
    little more). A patch is 7 x 7 pixels (smaller where the band is), at most 4 x 4 evenly spaced ones a band, at the same
    places in every image.
    """
    bands = []
    while min(image.shape[-2:]) >= 2 * SMALLEST:
        smaller = halved(image)
        bands.append(image - interpolate(smaller, size=image.shape[-2:], mode="bilinear"))
        image = smaller
    return [_patches(band) for band in (*bands, image)]


def sliced_wasserstein(
    generated: Sequence[Tensor],
    reference: Sequence[Tensor],
    *,
    group: Tensor | None = None,
    generated_group: Tensor | None = None,
    num_directions: int = 128,
    seed: int = 0,
) -> Distance:
    """Mean 1-D Wasserstein distance of patches along random directions, over the bands of a Laplacian pyramid.

    Unlike the published form (Karras et al. 2018, arXiv 1710.10196, section 5) patches are not normalised to one mean and
    deviation, so brightness and contrast count, and the value is in the units of the images. It sees texture and sharpness, not
    how parts belong together. Biased: two sets of one law have a distance above 0, about as 1 / sqrt(n); compare at the same n.

    How far an image moves it: the mean of Kantorovich's potential at its patches, which is the distance's derivative in the
    image's weight. Randomness: the directions, of `seed`.

    Args:
        generated, reference: `patches` of the images, (generations, ...) and (references, ...) of each band.
        group, generated_group: (references,), (generations,) labels of images that are one unit of the interval; None: each
            by itself.
        num_directions: Of each band.
        seed: Of the directions.
    """
    values, moved = [], []
    for level, band in enumerate(zip(generated, reference, strict=True)):
        direction = normal("sliced", (seed, level, torch.arange(num_directions)), band[0].shape[2:])
        direction = normalize(direction.double(), dim=1)
        # (directions, images, patches) of each side
        sides = [torch.einsum("ipd,kd->kip", each.cpu().double(), direction) for each in band]
        value, *potentials = wasserstein(*(each.flatten(1) for each in sides))
        values.append(value.mean())
        moved.append([each.reshape(side.shape).mean((0, 2)) for each, side in zip(potentials, sides)])
    generated_term, reference_term = (torch.stack(each).mean(0) for each in zip(*moved))
    moved_by = deviations(generated_term, generated_group), deviations(reference_term, group)
    return Distance(float(torch.stack(values).mean()), *moved_by)


def wasserstein(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The 1-D distance W1 of two samples and its derivatives in the weight of each number, row by row.

    `W1 = integral |F1 - F2|`; the derivatives are Kantorovich's potential f, f' = -sign(F1 - F2), at the first sample and -f
    at the second.

    Args:
        first, second: (rows, n), (rows, m).

    Returns:
        (rows,), (rows, n), (rows, m), the potentials but for a constant of each row.
    """
    num_first, num_second = first.shape[1], second.shape[1]
    place, order = torch.cat([first, second], 1).sort(1)
    steps = torch.where(order < num_first, num_second, -num_first)  # whole numbers, so that equal is equal
    above = steps.cumsum(1)[:, :-1]
    width = place.diff(dim=1)
    value = (above.abs() * width).sum(1) / (num_first * num_second)
    potential = torch.cat([torch.zeros_like(place[:, :1]), -(above.sign() * width).cumsum(1)], 1)
    potential = torch.empty_like(potential).scatter_(1, order, potential)
    return value, potential[:, :num_first], -potential[:, num_first:]


def _patches(band: Tensor) -> Tensor:
    """(images, patches, numbers of a patch)."""
    for axis in (2, 3):
        band = band.unfold(axis, min(PATCH, band.shape[axis]), 1)
        last = band.shape[axis] - 1
        place = torch.linspace(0, last, min(_PER_SIDE, last + 1)).round().long()
        band = band.index_select(axis, place.to(band.device))
    return band.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
