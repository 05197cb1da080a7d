"""How complex an image is: what a lossless encoder needs for it."""

import io
import math

import PIL.Image
import torch
from torch import Tensor

from ldm_privacy.data.images import to_uint8
from ldm_privacy.types import Image


def image_complexity(images: Image) -> Tensor:
    """Natural log of the number of bytes of each image as PNG, at the size that it has, 8 bits a channel, grey or colour.

    What a score owes to it says how hard an image is, not who was trained on. Encoder: Pillow's PNG writer, compress_level 6,
    no metadata, filters chosen line by line by the encoder. Three channels are written as RGB; of any other number as grey
    planes, one below the other.

    Each image's number depends on its image alone, to the last bit. Another build of Pillow may bring another zlib, which
    needs a few bytes more or less. No randomness, no network passes; about .2 ms per 32x32 RGB image, 90 ms per 512x512.

    Source: the size that T_mc_cal divides by, Rao & Moyer, "Generalization and Memorization in Rectified Flow", arXiv
    2603.13421; here as a log, so that a score in logs is calibrated by a straight line.

    Args:
        images: (samples, channels, height, width) in [-1, 1]; values outside are clipped.

    Returns:
        (samples,) float64, on the CPU, in ln(bytes): from about 4.2 (67 bytes, one pixel) upwards.
    """
    return torch.tensor([math.log(_num_bytes(pixels)) for pixels in to_uint8(images).cpu()], dtype=torch.float64)


def _num_bytes(pixels: Tensor) -> int:
    """Of one image, uint8 (channels, height, width), as PNG."""
    rows = pixels.permute(1, 2, 0) if len(pixels) == 3 else pixels.flatten(0, 1)
    file = io.BytesIO()
    PIL.Image.fromarray(rows.numpy()).save(file, "PNG", compress_level=6)
    return file.tell()
