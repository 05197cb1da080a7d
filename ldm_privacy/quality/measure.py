"""Every distance between two sets of images, on random features, on patches, and on those of a named network."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ldm_privacy.quality.cmmd import cmmd
from ldm_privacy.quality.distance import Distance
from ldm_privacy.quality.frechet import frechet
from ldm_privacy.quality.kernel import kid
from ldm_privacy.quality.random_features import RandomFeatures
from ldm_privacy.quality.sliced import patches, sliced_wasserstein
from ldm_privacy.types import Image

if TYPE_CHECKING:
    from ldm_privacy.models.features import FeatureNetwork

IMAGES_AT_ONCE = 64
"""Of what is described, so that large images never lie in memory all at once."""


@dataclass(frozen=True, eq=False)
class Described:
    """What distances need of a set of images, on the CPU.

    Attributes:
        random: (images, features), see `RandomFeatures`.
        patches: See `patches`.
        pooled: (images, features) of a network; None without one.
        is_clip: The network is CLIP's.
    """

    random: Tensor
    patches: list[Tensor]
    pooled: Tensor | None = None
    is_clip: bool = False


@torch.no_grad()
def described(images: Iterable[Image], random: RandomFeatures, network: "FeatureNetwork | None" = None) -> Described:
    """A set of images, (batch, image_channels, height, width) in [-1, 1] a time; one pass of the network an image."""
    found = [(random(each), [band.cpu() for band in patches(each)], network and network.pooled(each).cpu()) for each in images]
    pooled = None if network is None else torch.cat([each for _, _, each in found])  # type: ignore[misc]
    bands = [torch.cat(band) for band in zip(*(each for _, each, _ in found))]
    is_clip = network is not None and type(network.network).__name__ == "CLIPVisionModel"
    return Described(torch.cat([each for each, _, _ in found]), bands, pooled, is_clip)


def distances(
    generated: Described, reference: Described, *, group: Tensor | None = None, generated_group: Tensor | None = None
) -> dict[str, Distance]:
    """`kid_random` and `swd`; `kid` and `fid` where there is a network, `cmmd` where it is CLIP's. Lower is nearer, of all.

    Args:
        generated, reference: The two sets.
        group, generated_group: (references,), (generations,) labels of images that are one unit of the intervals; None: each
            by itself.
    """
    units: dict[str, Any] = {"group": group, "generated_group": generated_group}
    found = {
        "kid_random": kid(generated.random, reference.random, **units),
        "swd": sliced_wasserstein(generated.patches, reference.patches, **units),
    }
    if generated.pooled is not None and reference.pooled is not None:
        pooled = generated.pooled, reference.pooled
        found |= {"kid": kid(*pooled, **units), "fid": frechet(*pooled, **units)}
        if generated.is_clip:
            found["cmmd"] = cmmd(*pooled, **units)
    return found
