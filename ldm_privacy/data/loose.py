"""Loose images: a folder of them beside the data of a run, brought to the same pixels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ldm_privacy.data.columns import all_captions, class_codes
from ldm_privacy.data.folder import Folder
from ldm_privacy.data.images import opened_image, to_pixels
from ldm_privacy.data.wide import ValueRange, WideImages
from ldm_privacy.errors import UserError
from ldm_privacy.types import Done


@dataclass(frozen=True)
class LooseImages:
    """The images of a folder that can be read, in the order of their paths.

    Attributes:
        pixels: uint8, (images, channels, resolution, resolution).
        names: Of the files.
        captions: Of each image, [] where it has none; None where the folder has no captions.
        classes: The class of each image in words, "" where it has none; None where the folder has no classes.
        sizes: Width and height of each as it is stored.
        unreadable: Why each file that can't be read is left out.
    """

    pixels: Tensor
    names: Sequence[str]
    captions: Sequence[Sequence[str]] | None
    classes: Sequence[str] | None
    sizes: Sequence[tuple[int, int]]
    unreadable: Sequence[str]


def loose_images(
    path: str,
    *,
    resolution: int,
    channels: int,
    value_range: ValueRange = None,
    progress: Done = lambda done, total=None: None,
) -> LooseImages:
    """Every image of a folder that can be read, as `to_pixels` makes it; captions and classes as `Folder` finds them.

    Raises:
        UserError: As `Folder`: no such folder, no images, metadata that names what isn't there; no image can be read.
    """
    source = Folder(path=path, value_range=value_range)
    dataset = source.load()
    columns, wide = source.columns(dataset), WideImages(None if value_range == "auto" else value_range)
    pixels, rows, sizes, unreadable = list[Tensor](), list[int](), list[tuple[int, int]](), list[str]()
    files: list[Mapping[str, Any]] = dataset.select_columns([columns.image])[:][columns.image]
    for row, file in enumerate(files):
        try:
            with opened_image(file, row=row, column=columns.image) as (image, name):
                pixels.append(to_pixels(image, resolution=resolution, channels=channels, wide=wide, name=name))
                sizes.append(image.size)
            rows.append(row)
        except UserError as error:
            unreadable.append(str(error).removeprefix("data.source: "))
        progress(row + 1, len(files))
    if not rows:
        raise UserError(f"none of its {len(files)} images can be read ({unreadable[0].rstrip('.')}).")
    classes = None
    if columns.label is not None:
        codes, names = class_codes(dataset, columns.label)
        called = {-1: "", **dict(enumerate(names or []))}
        classes = [called.get(code, str(code)) for code in codes[rows].tolist()]
    return LooseImages(
        torch.stack(pixels),
        [str(files[row]["path"]) for row in rows],
        None if columns.caption is None else all_captions(dataset, columns.caption, rows),
        classes,
        sizes,
        unreadable,
    )
