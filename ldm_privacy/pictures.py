"""What pictures of every room share: images side by side as arrays of pixels; colours (Okabe-Ito, for the colour-blind)."""

import math

import numpy as np

from ldm_privacy.data.images import to_uint8
from ldm_privacy.types import Image

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MEMBER_COLOUR, HELDOUT_COLOUR = PALETTE[1], PALETTE[0]


def image_grid(image: Image, *, columns: int | None = None) -> np.ndarray:
    """Images in [-1, 1] side by side as one uint8 array (height, width, 3), a pixel of white between them."""
    pixels = to_uint8(image.detach().cpu())
    count, channels, height, width = pixels.shape
    if channels == 1:
        pixels = pixels.expand(-1, 3, -1, -1)
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    canvas = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1, 3), 255, np.uint8)
    for place, picture in enumerate(pixels):
        top, left = place // columns * (height + 1), place % columns * (width + 1)
        canvas[top : top + height, left : left + width] = picture.permute(1, 2, 0).numpy()
    return canvas
