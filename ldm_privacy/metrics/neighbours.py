"""The nearest images of images, by pixels."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ldm_privacy.device import ahead, rows_within
from ldm_privacy.types import Image, Images

_NUM_CANDIDATES = 8
"""Images per query whose distance is computed again without cancellation."""

_MOST_QUERIES, _MOST_REFERENCES = 128, 1024
"""At a time; fewer where the memory budget asks for it."""


@dataclass(frozen=True)
class Neighbours:
    """The two nearest reference images of each query: Euclidean distances and sample indices, (queries, 2) each."""

    distance: Tensor
    sample_index: Tensor

    @property
    def ratio(self) -> Tensor:
        """||g - NN1|| / ||g - NN2||, (queries,) float64 in [0, 1]; 1 where both distances are 0."""
        nearest, second = self.distance.unbind(1)
        return torch.where(second > 0, nearest / second.clamp_min(torch.finfo(second.dtype).tiny), 1.0)

    def merged(self, other: "Neighbours") -> "Neighbours":
        """The two nearest among the references of both, which must be disjoint."""
        distance, place = torch.cat([self.distance, other.distance], 1).topk(2, largest=False)
        return Neighbours(distance, torch.cat([self.sample_index, other.sample_index], 1).gather(1, place))


def nearest_two(
    query: Image,
    images: Images,
    sample_index: Tensor,
    *,
    batch_size: int | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Neighbours:
    """The two reference images nearest to each query, by Euclidean distance over all pixels.

    `||r||^2 - 2 g.r` ranks the references in float32, a product of matrices a batch; it cancels where g and r almost
    agree, so the distances of the best eight are computed again as ||g - r|| in float64, on the CPU.

    Args:
        query: (queries, channels, height, width).
        images: Sample indices -> images like `query`.
        sample_index: (references,) int64, two at least.
        batch_size: References at a time; None: 1,024, or as many as the memory budget has room for.
        progress: Called with the number of references done.
    """
    flat = query.flatten(1).float()
    # A reference is there as it came, on the device and squared; a candidate in double precision, with its difference.
    batch_size = batch_size or min(_MOST_REFERENCES, rows_within(12 * flat.shape[1], flat.device))
    queries = min(_MOST_QUERIES, rows_within(20 * _NUM_CANDIDATES * flat.shape[1], torch.device("cpu")))
    num_kept = min(_NUM_CANDIDATES, len(sample_index))
    score = flat.new_full((len(flat), num_kept), math.inf)
    place = torch.zeros_like(score, dtype=torch.int64)
    start, chunks = 0, sample_index.split(batch_size)
    for chunk, found in zip(chunks, ahead(images, chunks)):
        reference = found.to(flat).flatten(1)
        near = torch.addmm(reference.square().sum(1)[None], flat, reference.T, alpha=-2)
        best, here = near.topk(min(num_kept, len(chunk)), largest=False)
        score, chosen = torch.cat([score, best], 1).topk(num_kept, largest=False)
        place = torch.cat([place, start + here], 1).gather(1, chosen)
        progress(start := start + len(chunk))
    candidate = sample_index.cpu()[place.cpu()]
    rows = zip(flat.cpu().split(queries), candidate.split(queries))
    distance = torch.cat([_distances(each, images(index.flatten()), index.shape) for each, index in rows])
    distance, chosen = distance.topk(2, largest=False)
    return Neighbours(distance, candidate.gather(1, chosen))


def _distances(query: Tensor, reference: Image, shape: torch.Size) -> Tensor:
    # On the CPU: not every accelerator has float64.
    reference = reference.cpu().flatten(1).double().reshape(*shape, -1)
    return (reference - query.double()[:, None]).square().sum(-1).sqrt()
