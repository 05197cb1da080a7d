"""Near-duplicates across the sides: held-out images that a member nearly shows."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ldm_privacy.errors import UserError
from ldm_privacy.types import Image

SIDE = 16
THRESHOLD = 0.95
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
            f"{self.count} of {self.num_heldout} held-out images are near-duplicates of an audited member (similarity at least "
            f"{self.threshold:g}); a random split of images like the members would have about {self.num_expected:.0f}."
        )


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


def near_duplicates(
    thumbnails: Tensor, is_member: Tensor, sample_index: Tensor, *, threshold: float = THRESHOLD
) -> NearDuplicates:
    """The nearest member of every held-out image, and how many are nearer than a threshold.

    Beside it: how many members have such a neighbour among the other members, which is what a random split of these images
    has across the sides as well. An attack takes held-out images with a near-duplicate for members, rightly in a sense; many
    more across than within mean that the split was not drawn at random.

    The threshold: among 12,500 + 12,500 random CIFAR-10 training images, 46 held-out ones have a member at 0.95 or more (47
    members another member), 5 at 0.98 and 212 at 0.90. Looked at, those from 0.98 up are all the same picture (recoloured,
    shifted), of those between 0.95 and 0.98 about five in six are; below, the false ones grow (horizons, letterboxes).

    Args:
        thumbnails: `thumbnail_features` of all images, (samples, features).
        is_member: (samples,) bool.
        sample_index: (samples,) int64, for the pairs.
        threshold: Cosine similarity in (0, 1].

    Returns:
        The record. No randomness, no network passes; the search is quadratic: 9 s for 12,500 + 12,500 images of 768 features
        on one core.

    Raises:
        UserError: The threshold is outside (0, 1]; no held-out image or fewer than two members; a non-finite image.
    """
    if not 0 < threshold <= 1:
        raise UserError(f"threshold is {threshold}: choose a cosine similarity in (0, 1], such as {THRESHOLD}.")
    finite = thumbnails.isfinite().all(dim=1)
    if not finite.all():
        sample = int(sample_index[~finite][0])
        raise UserError(f"the image of sample {sample} is not finite; mend it or take it out of the data.")
    member, heldout = thumbnails[is_member], thumbnails[~is_member]
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
