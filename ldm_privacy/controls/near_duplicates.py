"""Near-duplicates across the sides: held-out images that a member nearly shows."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ldm_privacy.errors import UserError
from ldm_privacy.types import Image

SIDE = 16
THRESHOLD = 0.98
_QUERIES_AT_ONCE = 1024
_BASE_AT_ONCE = 8192


@dataclass(frozen=True, eq=False)
class NearDuplicates:
    """Held-out images beside their nearest member, where that is nearer than the threshold.

    Attributes:
        pairs: (pairs, 2) int64, (member, held-out) sample indices, most similar first; each held-out image at most once.
        similarity: (pairs,) float32, cosine of `thumbnail_features`.
        threshold: From where on a pair counts.
        num_members: Members looked at.
        num_heldout: Held-out images looked at.
        num_within_members: Members whose nearest other member is as near: what the data hold by themselves.
    """

    pairs: Tensor
    similarity: Tensor
    threshold: float
    num_members: int
    num_heldout: int
    num_within_members: int

    @property
    def count(self) -> int:
        """Held-out images with a near-duplicate among the members."""
        return len(self.pairs)

    @property
    def num_expected(self) -> float:
        """Held-out images with one if the split were drawn at random: num_within_members * num_heldout / num_members."""
        return self.num_within_members * self.num_heldout / self.num_members

    @property
    def sentence(self) -> str:
        """The finding in plain words."""
        return (
            f"{self.count} of {self.num_heldout} held-out images are near-duplicates of a member (similarity at least "
            f"{self.threshold:g}); a random split of images like the members would have about {self.num_expected:.0f}."
        )


def thumbnail_features(images: Image) -> Tensor:
    """Pixels average-pooled to at most 16x16, less the image's mean, divided by the norm.

    A change of brightness or contrast (without clipping) changes nothing, a small edit or shift changes little. An image of
    one colour has all zeros: it is similar to nothing.

    Args:
        images: (samples, channels, height, width).

    Returns:
        (samples, channels * min(16, height) * min(16, width)) float32, norm 1 or 0. No randomness, no network passes.
    """
    pooled = functional.adaptive_avg_pool2d(images.float(), (min(SIDE, images.shape[2]), min(SIDE, images.shape[3])))
    flat = pooled.flatten(1)
    # The floor is a hundredth of a grey level per pixel: below it there is only rounding.
    centred = flat - flat.mean(dim=1, keepdim=True)
    norm = centred.norm(dim=1, keepdim=True)
    return torch.where(norm <= 1e-4 * flat.shape[1] ** 0.5, 0.0, centred / norm)


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


def near_duplicates(images: Image, is_member: Tensor, sample_index: Tensor, *, threshold: float = THRESHOLD) -> NearDuplicates:
    """The nearest member of every held-out image, and how many are nearer than a threshold.

    Beside it: how many members have such a neighbour among the other members, which is what a random split of these images
    has across the sides as well. Copies raise attacks' false positives; many more across than within mean that the
    split was not drawn at random.

    Args:
        images: (samples, channels, height, width), both sides.
        is_member: (samples,) bool.
        sample_index: (samples,) int64, for the pairs.
        threshold: Cosine similarity in (0, 1].

    Returns:
        The record. No randomness, no network passes; 25,000 + 25,000 RGB images: XX s on one core.

    Raises:
        UserError: The threshold is outside (0, 1]; no held-out image or fewer than two members; a non-finite image.
    """
    if not 0 < threshold <= 1:
        raise UserError(f"threshold is {threshold}: choose a cosine similarity in (0, 1], such as {THRESHOLD}.")
    features = torch.cat([thumbnail_features(chunk) for chunk in images.split(_BASE_AT_ONCE)])
    finite = features.isfinite().all(dim=1)
    if not finite.all():
        raise UserError(
            f"the image of sample {int(sample_index[~finite][0])} is not finite; mend it or take it out of the data."
        )
    member, heldout = features[is_member], features[~is_member]
    if len(member) < 2 or len(heldout) < 1:
        raise UserError(f"{len(member)} members and {len(heldout)} held-out images: near-duplicates need 2 and 1.")
    row, similarity = nearest(heldout, member)
    _, within = nearest(member, member, exclude_same=True)
    order = similarity.argsort(descending=True, stable=True)
    order = order[similarity[order] >= threshold]
    pairs = torch.stack([sample_index[is_member][row[order]], sample_index[~is_member][order]], dim=1)
    return NearDuplicates(
        pairs=pairs,
        similarity=similarity[order],
        threshold=threshold,
        num_members=len(member),
        num_heldout=len(heldout),
        num_within_members=int((within >= threshold).sum()),
    )
