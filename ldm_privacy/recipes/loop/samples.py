"""The audited images of a watched loop, and what is measured of them once."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from ldm_privacy.attacks.base import Attack
from ldm_privacy.audit.measure import Measuring
from ldm_privacy.audit.samples import AuditedSamples
from ldm_privacy.data.conditions import views_of
from ldm_privacy.data.images import to_float, to_pixels
from ldm_privacy.errors import UserError
from ldm_privacy.geometry.estimate import InfluenceEstimator
from ldm_privacy.geometry.probe import ProbeInfluence
from ldm_privacy.models.codec import Codec
from ldm_privacy.recipes.loop.told import Told
from ldm_privacy.recipes.terminal import progress
from ldm_privacy.types import Image


def measured_samples(
    codec: Codec,
    images: Callable[[Tensor], Image],
    is_member: Tensor,
    told: Told,
    *,
    views: Sequence[str],
    attacks: Iterable[Attack],
    influence: InfluenceEstimator | None,
    seed: int,
) -> AuditedSamples:
    """The audited samples, with the conditions that `views` and attacks ask for; on the codec's device.

    One encoder pass and one decoder pass an image, and the products of the estimator.
    """
    index = torch.arange(len(is_member))
    found: dict[str, Any] = {}
    if told.own and told.null:
        found = views_of(views, index, told.own, told.null, seed=seed)
        if any(view.startswith("without") for attack in attacks for view in attack.views):
            found |= told.reduced(index)
    influence = influence or ProbeInfluence(seed=seed)
    measuring = Measuring(codec, images, "", None, codec.device, progress)
    return measuring.samples(index, measuring.means(index), is_member, condition=told.own, views=found, influence=influence)


def stacked_images(members: Any, heldout: Any, *, resolution: int | None, channels: int) -> Tensor:
    """Both sides as one tensor on the CPU, members first: float32 in [-1, 1], or uint8 where that is what they are.

    Args:
        members, heldout: (images, channels, height, width), floats in [-1, 1] or uint8; or PIL images.
        resolution, channels: That PIL images are brought to; see `to_pixels`.

    Raises:
        UserError: They are something else, or have other values.
    """
    sides = [_pixels(*side, resolution, channels) for side in (("members", members), ("heldout", heldout))]
    if (shapes := [tuple(each.shape[1:]) for each in sides])[0] != shapes[1]:
        raise UserError(f"heldout: images of shape {shapes[1]}, and the members' are {shapes[0]}.")
    return torch.cat(sides if sides[0].dtype == sides[1].dtype else [as_floats(each) for each in sides])


def as_floats(images: Tensor) -> Image:
    """What `stacked_images` keeps, as float32 in [-1, 1]."""
    return to_float(images) if images.dtype == torch.uint8 else images


def _pixels(name: str, images: Any, resolution: int | None, channels: int) -> Tensor:
    if not isinstance(images, Tensor):
        if resolution is None:
            raise UserError(f"{name}: of images that are no tensor the resolution is needed, as in resolution=512.")
        return torch.stack([to_pixels(each, resolution=resolution, channels=channels) for each in images])
    if images.ndim != 4 or not (images.dtype == torch.uint8 or images.is_floating_point()):
        raise UserError(f"{name}: {images.dtype} of shape {tuple(images.shape)}; (images, channels, height, width) is needed.")
    if images.dtype == torch.uint8:
        return images.cpu()
    if len(images) and not float(images.abs().max()) <= 1.001:
        raise UserError(f"{name}: values up to {float(images.abs().max()):.4g}; images in [-1, 1] are needed.")
    return images.float().cpu()
