"""Images as pixels: grids, and pairs side by side."""

import io
import math

import numpy as np
import torch

from ldm_privacy.report.page.blocks import ImageCard, Thumbnail
from ldm_privacy.types import Image, Images


def image_grid(image: Image, *, columns: int | None = None) -> np.ndarray:
    """Images in [-1, 1] side by side as one uint8 array (height, width, 3), a pixel of white between them."""
    pixels = ((image.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round().byte()
    if pixels.shape[1] == 1:
        pixels = pixels.expand(-1, 3, -1, -1)
    count, channels, height, width = pixels.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    canvas = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1, channels), 255, np.uint8)
    for place, picture in enumerate(pixels):
        top, left = place // columns * (height + 1), place % columns * (width + 1)
        canvas[top : top + height, left : left + width] = picture.permute(1, 2, 0).numpy()
    return canvas


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
