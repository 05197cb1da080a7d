"""What an image looks like from afar, and which image looks most like it."""

import torch
from torch import Tensor
from torch.nn import functional

from ldm_privacy.errors import UserError
from ldm_privacy.types import Image

SIDE = 16
_QUERIES_AT_ONCE = 1024
_BASE_AT_ONCE = 8192


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

    Raises:
        UserError: `base` has no row to choose.
    """
    if len(base) <= int(exclude_same):
        raise UserError(f"nearest: {len(base)} images to search among; pass more.")
    rows, similarities = [], []
    for first in range(0, len(query), _QUERIES_AT_ONCE):
        chunk = query[first : first + _QUERIES_AT_ONCE]
        best = torch.full((len(chunk),), -torch.inf, device=query.device)
        best_row = torch.zeros(len(chunk), dtype=torch.int64, device=query.device)
        for start in range(0, len(base), _BASE_AT_ONCE):
            similarity = chunk @ base[start : start + _BASE_AT_ONCE].T
            if exclude_same:
                similarity.diagonal(first - start).fill_(-torch.inf)
            value, place = similarity.max(dim=1)
            better = value > best
            best, best_row = torch.where(better, value, best), torch.where(better, place + start, best_row)
        rows.append(best_row)
        similarities.append(best)
    if not rows:
        return torch.zeros(0, dtype=torch.int64), torch.zeros(0)
    return torch.cat(rows), torch.cat(similarities)
