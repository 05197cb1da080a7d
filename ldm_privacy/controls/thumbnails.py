"""What an image looks like from afar, and which image looks most like it."""

import torch
from torch import Tensor
from torch.nn import functional

from ldm_privacy.types import Image

SIDE = 16
_PRODUCTS_AT_ONCE = 2**23


def thumbnail_features(images: Image) -> Tensor:
    """Pixels average-pooled to at most 16x16, less each channel's mean, divided by the norm.

    A change of brightness, white balance or contrast (without clipping) changes nothing, a small edit or shift changes
    little. An image of one colour has all zeros: it is similar to nothing. Each image's features depend on it alone.

    Args:
        images: (samples, channels, height, width).

    Returns:
        (samples, channels * min(16, height) * min(16, width)) float32, norm 1 or 0. No randomness, no network passes.
    """
    pooled = functional.adaptive_avg_pool2d(images.float(), (min(SIDE, images.shape[2]), min(SIDE, images.shape[3])))
    # Each channel's own mean: with one mean for all, any two blue skies would be alike.
    flat = (pooled - pooled.mean(dim=(2, 3), keepdim=True)).flatten(1)
    # The floor is a hundredth of a grey level per pixel: below it there is only rounding.
    norm = flat.norm(dim=1, keepdim=True)
    return torch.where(norm <= 1e-4 * flat.shape[1] ** 0.5, 0.0, flat / norm)


def nearest(query: Tensor, base: Tensor, *, exclude_same: bool = False) -> tuple[Tensor, Tensor]:
    """The row of `base` of largest inner product with each row of `query`.

    Args:
        query: (queries, features), of norm 1 or 0 (`thumbnail_features`).
        base: (rows, features), the same.
        exclude_same: Leave out row i for query i (`query` and `base` are the same rows).

    Returns:
        Row (queries,) int64, ties to the lower one, and similarity (queries,) float32 in [-1, 1] (to rounding). No randomness.
        Exact search in chunks: 2 * queries * rows * features operations, 32 MiB beside the input.
    """
    step = max(1, _PRODUCTS_AT_ONCE // len(base))
    rows, similarities = [], []
    for first in range(0, len(query), step):
        similarity = query[first : first + step] @ base.T
        if exclude_same:
            similarity.diagonal(first).fill_(-torch.inf)
        best = similarity.max(dim=1)
        rows.append(best.indices)
        similarities.append(best.values)
    return torch.cat(rows), torch.cat(similarities)
