"""Images that may be larger than memory: decoded when they are asked for, on several threads, and kept as far as they fit."""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor

from ldm_privacy.data.images import decode_image
from ldm_privacy.data.wide import WideImages
from ldm_privacy.errors import UserError
from ldm_privacy.types import Done

AT_ONCE = 64
"""Images that are decoded together: so many lie in memory beside those that are kept, twice where the next ones are fetched."""
_MOST_THREADS = 8


class BoundedImages:
    """Some images of a data set by their place, uint8, (channels, resolution, resolution) each, whole or in part in memory.

    All are decoded once, here. The first ones are kept, as many as fit; the others are decoded each time they are asked for: of
    images that are walked over again and again no other choice keeps more. Threads only decode; results and errors don't
    depend on their number.

    Args:
        dataset: Its image column undecoded.
        column: That column.
        rows: Of the images, in their order.
        resolution, channels: See `to_pixels`.
        limits: What is black and white in images of more than 8 bits.
        memory_gib: For what is kept and what is being decoded; None: no bound.
        num_threads: That decode; as many as there are cores by default, at most 8.
        progress: Called with (decoded, in all) after every few, first with (0, in all).

    Attributes:
        digests: SHA-256 of the pixels of each.
        files: The file of each, as the data name it; None where they don't.
        notes: What a user should know of images of more than 8 bits, a line each.
        num_kept: How many are kept.
        num_decoded: How often an image was decoded so far, all images together.

    Raises:
        UserError: An image can't be read; names its row.
    """

    def __init__(
        self,
        dataset: Dataset,
        column: str,
        rows: Sequence[int],
        *,
        resolution: int,
        channels: int,
        limits: tuple[float, float] | None = None,
        memory_gib: float | None = None,
        num_threads: int | None = None,
        progress: Done = lambda done, total=None: None,
    ):
        self.shape = torch.Size((channels, resolution, resolution))
        self._cells, self._column, self._rows, self._limits = dataset.select_columns([column]), column, list(rows), limits
        self._num_threads = num_threads or min(_MOST_THREADS, num_cores())
        self.num_decoded, self.num_kept = 0, num_that_fit(len(rows), self.shape, memory_gib)
        self._kept = torch.empty(self.num_kept, *self.shape, dtype=torch.uint8)
        self.digests, self.files, wide = list[bytes](), list[str | None](), WideImages(limits)
        progress(0, len(self))
        for place, (pixels, digest, seen, file) in enumerate(self._decoded(range(len(self)))):
            if place < self.num_kept:
                self._kept[place] = pixels
            self.digests.append(digest)
            self.files.append(file)
            wide.add(seen)
            if (place + 1) % AT_ONCE == 0 or place + 1 == len(self):
                progress(place + 1, len(self))
        self.notes = wide.notes()

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, place: Tensor) -> Tensor:
        """uint8, (batch, channels, resolution, resolution), of those places, int64 on the CPU; none is decoded twice.

        Raises:
            UserError: One that is decoded again isn't what it was.
        """
        found, is_kept = torch.empty(len(place), *self.shape, dtype=torch.uint8), place < self.num_kept
        found[is_kept] = self._kept[place[is_kept]]
        others, which = place[~is_kept].unique(return_inverse=True)
        wanted = (~is_kept).nonzero().flatten()
        decoded = zip(self._decoded(others.tolist()), others.tolist())
        for number, ((pixels, digest, *_), place_of) in enumerate(decoded):
            if digest != self.digests[place_of]:  # what is stored of images lies under the digest of all
                raise UserError(
                    f"data.source: row {self._rows[place_of]} was changed while this program ran; leave data as they are."
                )
            found[wanted[which == number]] = pixels
        return found

    def _decoded(self, places: Sequence[int]) -> Iterator[tuple[Tensor, bytes, WideImages, str | None]]:
        """Pixels, their digest, what was seen of more than 8 bits, and the file's name, in order."""
        channels, resolution, _ = self.shape

        def decoded(row: int, cell: Mapping[str, Any]) -> tuple[Tensor, bytes, WideImages, str | None]:
            wide = WideImages(self._limits)
            pixels = decode_image(cell, resolution=resolution, channels=channels, row=row, column=self._column, wide=wide)
            return pixels, digest_of_pixels(pixels), wide, cell.get("path") or None

        for start in range(0, len(places), AT_ONCE):
            rows = [self._rows[place] for place in places[start : start + AT_ONCE]]
            with ThreadPoolExecutor(self._num_threads) as pool:
                yield from pool.map(decoded, rows, self._cells[rows][self._column])
            self.num_decoded += len(rows)


class Pixels:
    """Images by number, as a uint8 tensor of them is indexed on the CPU, without being one; `to(device)` as of a tensor."""

    device = torch.device("cpu")

    def __init__(self, images: BoundedImages, places: Tensor):
        self._images, self._places = images, places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, number: Tensor) -> Tensor:
        return self._images[self._places[number]]

    def to(self, device: torch.device) -> "Pixels | Tensor":
        """A tensor on the device where all images are kept in memory; themselves where they aren't, or stay on the CPU."""
        if device == self.device or self._images.num_kept < len(self._images):
            return self
        return self._images[self._places].to(device)


def num_that_fit(count: int, shape: torch.Size, memory_gib: float | None) -> int:
    """How many of so many uint8 images of that shape are kept: all, or what is left beside two batches that are decoded."""
    if memory_gib is None or count * shape.numel() <= memory_gib * 2**30:
        return count
    return max(0, int(memory_gib * 2**30 // shape.numel()) - 2 * AT_ONCE)


def num_cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def digest_of_pixels(pixels: Tensor) -> bytes:
    """SHA-256 of the pixels of one image."""
    return hashlib.sha256(pixels.contiguous().numpy().data).digest()
