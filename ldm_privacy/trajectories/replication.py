"""Replication: whether a caption's generation is its own training image, in latents."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ldm_privacy.types import Latent

_PRODUCTS_AT_ONCE = 2**23


def centred(latent: Latent, mean: Latent) -> Tensor:
    """(batch, numbers of a latent) float64: less the mean latent, at length 1 (0 where it is the mean)."""
    flat = (latent.double() - mean.to(latent.device).double()).flatten(1)
    return torch.nn.functional.normalize(flat, dim=1)


def nearest_of(
    generated: Latent, member: Latent, member_index: Tensor, mean: Latent, *, among: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """(batch,) cosine and sample index of the nearest of those members; ties to the first.

    `among`, (members,) bool: who of them are members; all by default. O(generations x members x numbers of a latent), in chunks
    of bounded memory. -inf and -1 where there are no members.
    """
    best = torch.full((len(generated),), -torch.inf, dtype=torch.float64, device=generated.device)
    index = torch.full((len(generated),), -1, dtype=torch.int64, device=generated.device)
    places = torch.arange(len(member)) if among is None else among.cpu().nonzero().flatten()
    direction = centred(generated, mean)
    for rows in places.split(max(1, _PRODUCTS_AT_ONCE // direction.shape[1])) if len(places) else ():
        here = (direction @ centred(member[rows], mean).T).max(1)
        is_nearer = here.values > best
        best = torch.where(is_nearer, here.values, best)
        index = torch.where(is_nearer, member_index.to(index.device)[rows.to(index.device)][here.indices], index)
    return best, index


def nearest_of_shares(shares: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """What `nearest_of` would have found among all members together, from what it found in shares of them, in their order."""
    similarity, index = (torch.stack(each) for each in zip(*shares))
    best = similarity.argmax(0, keepdim=True)
    return similarity.gather(0, best)[0], index.gather(0, best)[0]


def similarity(generated: Latent, own: Latent, mean: Latent) -> Tensor:
    """Centred cosine of generations with their own captions' images, (batch,) float64, in [-1, 1].

    <g - mean, x - mean> / (||g - mean|| ||x - mean||): guided copies are over-saturated, which a distance (and the rule of
    nearest-neighbour ratios, `memorized_generations`) takes for another image; the cosine doesn't change with contrast.

    Args:
        generated: (batch, ...), the final latents.
        own: (batch, ...), latents of the images whose captions they were made from; members or held-out.
        mean: (...), of the latents.
    """
    return (centred(generated, mean) * centred(own, mean)).sum(1)
