"""The images of a run: source, split, pixels, everything addressed by sample index."""

import logging
from collections.abc import Callable
from functools import partial

import torch
from datasets import Dataset
from torch import Tensor

from ldm_privacy.data.bounded import BoundedImages, Pixels
from ldm_privacy.data.columns import all_captions, class_codes, group_codes
from ldm_privacy.data.draw import draw_split, split_from_index_file, split_from_sides
from ldm_privacy.data.duplicates import find_duplicates, remove_duplicates
from ldm_privacy.data.images import opened_image, to_float
from ldm_privacy.data.sources import ImageSource
from ldm_privacy.data.split import Split
from ldm_privacy.data.wide import WideImages, raw_mode
from ldm_privacy.errors import UserError
from ldm_privacy.types import Done, Image

log = logging.getLogger("ldm_privacy")

_ROWS_AT_ONCE = 256


class ImageData:
    """Members, held-out and public images of one source, as uint8: one pass over the rows of the split decodes them all.

    Those that fit `memory_gib` stay in memory, the others are decoded again when they are asked for: see `BoundedImages`. A
    sample index is the row in the source, unique over all parts; asking for a row outside the split is a ValueError.

    Args:
        source: Where the images come from.
        resolution: Side in pixels; the shorter side is resized to it, the centre square kept.
        channels: 1 (grey) or 3 (colour).
        num_members: Rows that the denoiser trains on; None: all that the index file names, or the source where it has sides.
        num_heldout: Rows that it never sees; None: as of members.
        num_public: Rows for the autoencoder alone, disjoint from both; None: all that the index file names.
        index_file: `.npz` with `mia_train_idxs`, `mia_eval_idxs` and, optionally, `public_idxs`; without it the sides are the
            source's own where it has some, and otherwise rows are drawn by seed.
        group_column: Column (patient, identity, captions) whose equal values stay on one side; see `group_codes`.
        seed: Of the split.
        memory_gib: For decoded images; None: all of them stay in memory.
        by_coins: A fair coin decides of each row that is drawn (of each group) on which side it is; see `draw_split`.
        split: Use this one (of a checkpoint) instead of drawing; it keeps its held-out copies, for the numbers are its own.
        progress: Called with (rows decoded, rows in all) after every few rows, first with (0, rows in all).

    Attributes:
        split: The rows of each part; a drawn one without copies, see `find_duplicates`.
        duplicates: Copies, other repeats, the hash of all pixels and groups.
        bounded: The images themselves.
        class_names: Where the labels have names.
        num_classes: Number of class names, or one more than the largest label; None without labels.

    Raises:
        UserError: Channels or resolution that can't be, counts missing where there is no index file; no such data, column or
            row; an image that can't be read; a stored split of another source; only copies in held-out.
    """

    def __init__(
        self,
        source: ImageSource,
        *,
        resolution: int,
        channels: int,
        num_members: int | None = None,
        num_heldout: int | None = None,
        num_public: int | None = 0,
        index_file: str | None = None,
        group_column: str | None = None,
        seed: int = 0,
        memory_gib: float | None = None,
        by_coins: bool = False,
        split: Split | None = None,
        progress: Done = lambda done, total=None: None,
    ):
        if channels not in (1, 3):
            raise UserError(f"data.channels={channels}: must be 1 (grey) or 3 (colour).")
        if resolution < 1:
            raise UserError(f"data.resolution={resolution}: must be at least 1.")
        counts = {"num_members": num_members, "num_heldout": num_heldout, "num_public": num_public}
        for key, count in counts.items():
            if count is None and index_file is None and source.side_column is None:
                raise UserError(f"data.{key}: missing; give a number (only data.index_file can stand for it).")
        dataset = source.load()
        num_rows = len(dataset)
        if split is not None and split.num_rows != num_rows:
            raise UserError(
                f"data.source: the stored split belongs to a source of {split.num_rows} rows, but this one has "
                f"{num_rows}; name the data that the run was trained on."
            )
        columns = source.columns(dataset)
        self._label: Tensor | None = None
        self.class_names: list[str] | None = None
        if columns.label is not None:
            self._label, self.class_names = class_codes(dataset, columns.label)
        self.num_classes = None if self._label is None else len(self.class_names or range(int(self._label.max()) + 1))
        self._group = None if group_column is None else group_codes(dataset, group_column)
        draw: Callable[..., Split] = partial(draw_split, by_coins=by_coins)
        if index_file is not None:
            draw = partial(split_from_index_file, index_file)
        elif (side := source.side_column) is not None:
            draw = partial(split_from_sides, dataset.select_columns([side])[:][side], by_coins=by_coins)
        drawn = split or draw(num_rows=num_rows, group=self._group, seed=seed, **counts)
        rows = torch.cat([drawn.audited_index, drawn.public_index]).sort().values
        self._position = torch.full((num_rows,), -1)
        self._position[rows] = torch.arange(len(rows))
        self._caption = None if columns.caption is None else all_captions(dataset, columns.caption, rows.tolist())
        self.bounded = BoundedImages(
            dataset,
            columns.image,
            rows.tolist(),
            resolution=resolution,
            channels=channels,
            limits=self._limits(source, dataset, columns.image, progress),
            memory_gib=memory_gib,
            progress=progress,
        )
        for note in self.bounded.notes:
            log.warning("%s", note)
        digest = dict(zip(rows.tolist(), self.bounded.digests, strict=True))
        self.duplicates = find_duplicates(digest, self.bounded.shape, drawn, group=self._group)
        self.split = drawn if split is not None else remove_duplicates(drawn, self.duplicates)

    def images(self, sample_index: Tensor) -> Image:
        """float32 [-1, 1], (batch, channels, resolution, resolution), on the CPU, as stored: flips are the training's."""
        return to_float(self.pixels(sample_index))

    def pixels(self, sample_index: Tensor) -> Tensor:
        """uint8, (batch, channels, resolution, resolution)."""
        return self.bounded[self._positions(sample_index)]

    def by_number(self, sample_index: Tensor) -> Pixels:
        """The same for a training, which asks for some at a time; number 0 is the first of them."""
        return Pixels(self.bounded, self._positions(sample_index))

    def labels(self, sample_index: Tensor) -> Tensor | None:
        """Class labels, int64, (batch,), -1 where a row has none; None where the data have no labels."""
        return None if self._label is None else self._label[sample_index.cpu()]

    def groups(self, sample_index: Tensor) -> Tensor | None:
        """Group numbers, int64, (batch,); None without `group_column`."""
        return None if self._group is None else self._group[sample_index.cpu()]

    def captions(self, sample_index: Tensor) -> list[list[str]] | None:
        """Captions of each sample, [] where it has none; None where the data have no column of them."""
        caption = self._caption
        return None if caption is None else [caption[place] for place in self._positions(sample_index).tolist()]

    def files(self, sample_index: Tensor) -> list[str | None]:
        """The file of each sample, as the data name it; None where they don't."""
        return [self.bounded.files[place] for place in self._positions(sample_index).tolist()]

    def _positions(self, sample_index: Tensor) -> Tensor:
        index = sample_index.cpu()
        inside = (index >= 0) & (index < len(self._position))
        positions = torch.where(inside, self._position[index.clamp(0, len(self._position) - 1)], -1)
        if bool((positions < 0).any()):
            raise ValueError(f"sample_index: row {int(index[positions < 0][0])} is not in the split")
        return positions

    def _limits(self, source: ImageSource, dataset: Dataset, column: str, progress: Done) -> tuple[float, float] | None:
        """What is black and white in images of more than 8 bits; "auto" looks at every row, so that no split changes it."""
        if source.value_range != "auto":
            return source.value_range
        seen, cells = WideImages(), dataset.select_columns([column])
        for row in range(len(dataset)):
            with opened_image(cells[row][column], row=row, column=column) as (image, name):
                seen.values(image, raw_mode(image), name)
            if row % _ROWS_AT_ONCE == 0:
                progress(row, len(dataset))
        return seen.observed()
