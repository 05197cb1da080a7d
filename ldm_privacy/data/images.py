"""From any image file to a tensor: orientation, mode, resize, centre crop, and the two number ranges."""

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import PIL.Image
import torch
from PIL import ExifTags, ImageOps
from torch import Tensor

from ldm_privacy.data.wide import WideImages, raw_mode
from ldm_privacy.errors import UserError
from ldm_privacy.types import Image

MODES = {1: "L", 3: "RGB"}


def to_float(pixels: Tensor) -> Image:
    """uint8 0..255 to float32 [-1, 1]: x / 127.5 - 1, exact at both ends."""
    return pixels.float() / 127.5 - 1.0


def to_uint8(images: Image) -> Tensor:
    """The inverse of `to_float`: round((x + 1) * 127.5), values outside [-1, 1] clipped."""
    return ((images.float() + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)


def to_pixels(
    image: PIL.Image.Image, *, resolution: int, channels: int, wide: WideImages | None = None, name: str = "an image"
) -> Tensor:
    """A PIL image of any mode as uint8, (channels, resolution, resolution), with 1 or 3 channels.

    Grey of more than 8 bits is scaled as `wide` says, by the range of its type where it is None. The EXIF orientation is
    applied; transparency is laid on white; colours become grey by ITU-R 601 (one channel) and grey is repeated (three). Then
    the shorter side is resized to `resolution` (bicubic, antialiased) and the centre square is kept; where that side has
    the size already, pixels are kept bit for bit. Raises ValueError where the pixels have no known range (floating point
    outside [0, 1], integers outside 16 bits, values that are not finite). `name` is how messages call it.
    """
    stored = raw_mode(image)
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:  # exif_transpose copies whatever it is given
        image = ImageOps.exif_transpose(image)
    image = (wide or WideImages()).narrowed(image, stored, name)
    image = _as_mode(image, MODES[channels])
    if image.size != (resolution, resolution):
        width, height = image.size
        side = min(width, height)
        if side == resolution:  # whole pixels: nothing is resampled
            column, row = (width - side) // 2, (height - side) // 2
            image = image.crop((column, row, column + side, row + side))
        else:
            left, top = (width - side) / 2, (height - side) / 2
            # One step over the centre square: the same as resize, then crop, without ever holding the long side.
            box = (left, top, left + side, top + side)
            image = image.resize((resolution, resolution), PIL.Image.Resampling.BICUBIC, box=box)
    pixels = np.array(image, dtype=np.uint8)
    # Turned by NumPy: torch would start threads of its own in each thread that decodes.
    return torch.from_numpy(pixels[None] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def decode_image(
    record: Mapping[str, Any] | None,
    *,
    resolution: int,
    channels: int,
    row: int,
    column: str,
    wide: WideImages | None = None,
) -> Tensor:
    """`to_pixels` of a cell {"bytes": ..., "path": ...}. Raises UserError with row, column and file where it holds no image."""
    with opened_image(record, row=row, column=column) as (image, name):
        return to_pixels(image, resolution=resolution, channels=channels, wide=wide, name=name)


@contextmanager
def opened_image(record: Mapping[str, Any] | None, *, row: int, column: str) -> Iterator[tuple[PIL.Image.Image, str]]:
    """The image of a cell, and how messages call it; UserError, as of `decode_image`, for whatever goes wrong inside."""
    where = f"data.source: row {row}, column '{column}'"
    if record is None or (record.get("bytes") is None and not record.get("path")):
        raise UserError(f"{where}: there is no image; take the row out of the data.")
    data, path = record.get("bytes"), record.get("path")
    try:
        with PIL.Image.open(str(path) if data is None else io.BytesIO(data)) as image:
            yield image, f"row {row}{f', {path}' if path else ''}"
    except Exception as error:  # Pillow's readers raise many kinds; for the user all mean that this image can't be read
        file = f" ({path})" if path else ""
        # Pillow's messages on bytes end in the address of a buffer, which tells nobody anything.
        reason = str(error).split(" <_io")[0] or type(error).__name__
        raise UserError(
            f"{where}{file}: the image can't be read: {reason}. Mend it or take the row out of the data."
        ) from error


def _as_mode(image: PIL.Image.Image, mode: str) -> PIL.Image.Image:
    if image.has_transparency_data:
        colour = image.convert("RGBA")
        white = PIL.Image.new("RGBA", colour.size, (255, 255, 255, 255))
        image = PIL.Image.alpha_composite(white, colour).convert("RGB")
    elif image.mode not in ("1", "L", "RGB"):
        image = image.convert("RGB")
    return image if image.mode == mode else image.convert(mode)
