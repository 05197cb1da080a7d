"""Pairs of images side by side."""

import io

import torch

from ldm_privacy.report.page.blocks import ImageCard, Thumbnail
from ldm_privacy.types import Image, Images
from ldm_privacy.watch.pictures import image_grid


def image_pair(images: Images, member: int, heldout: int, caption: str) -> ImageCard:
    """A member beside a held-out image."""
    both = images(torch.tensor([member, heldout]))
    labels = (f"member {member}", f"held-out {heldout}")
    sides = zip(both, labels, (True, False))
    return ImageCard(tuple(Thumbnail(_png(image[None]), label, is_member) for image, label, is_member in sides), caption)


def _png(image: Image) -> bytes:
    import PIL.Image

    buffer = io.BytesIO()
    PIL.Image.fromarray(image_grid(image)).save(buffer, format="PNG")
    return buffer.getvalue()
