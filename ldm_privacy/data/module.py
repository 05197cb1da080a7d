"""The images of a run: source, split, pixels in memory, everything addressed by sample index."""

from functools import partial

import torch
from datasets import Dataset
from torch import Tensor

from ldm_privacy.data.columns import Columns, class_codes, first_captions, group_codes
from ldm_privacy.data.draw import draw_split, split_from_index_file
from ldm_privacy.data.duplicates import Duplicates, find_duplicates, remove_duplicates
from ldm_privacy.data.images import decode_image, to_float
from ldm_privacy.data.sources import ImageSource
from ldm_privacy.data.split import Split
from ldm_privacy.errors import UserError
from ldm_privacy.types import Done, Image

_ROWS_AT_ONCE = 256


class ImageData:
    """Members, held-out and public images of one source, decoded once into uint8.

    `open` finds columns and rows (cheap); `prepare` decodes. A sample index is the row in the source, unique over all
    parts; asking for a row outside the split is a ValueError.

    Args:
        source: Where the images come from.
        resolution: Side in pixels; the shorter side is resized to it, the centre square kept.
        channels: 1 (grey) or 3 (colour).
        num_members: Rows that the denoiser trains on; None: all that the index file names.
        num_heldout: Rows that it never sees; None: all that the index file names.
        num_public: Rows for the autoencoder alone, disjoint from both; None: all that the index file names.
        index_file: `.npz` with `mia_train_idxs`, `mia_eval_idxs` and, optionally, `public_idxs`; without it rows are drawn by
            seed.
        group_column: Column (patient, identity) whose equal values stay on one side.
        seed: Of the split.

    Raises:
        UserError: Channels or resolution that can't be, or counts missing where there is no index file.
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
    ):
        if channels not in (1, 3):
            raise UserError(f"data.channels={channels}: must be 1 (grey) or 3 (colour).")
        if resolution < 1:
            raise UserError(f"data.resolution={resolution}: must be at least 1.")
        counts = {"num_members": num_members, "num_heldout": num_heldout, "num_public": num_public}
        for key, count in counts.items():
            if count is None and index_file is None:
                raise UserError(f"data.{key}: missing; give a number (only data.index_file can stand for it).")
        self.source = source
        self.resolution = resolution
        self.channels = channels
        self.group_column = group_column
        draw = draw_split if index_file is None else partial(split_from_index_file, index_file)
        self._draw = partial(draw, **counts, seed=seed)  # type: ignore[arg-type]
        self.class_names: list[str] | None = None
        self._dataset: Dataset | None = None
        self._columns: Columns | None = None
        self._split: Split | None = None
        self._split_is_drawn = True
        self._duplicates: Duplicates | None = None
        self._label: Tensor | None = None
        self._group: Tensor | None = None
        self._caption: list[str] | None = None
        self._pixels = torch.empty(0)
        self._position = torch.empty(0)

    def open(self, split: Split | None = None) -> None:
        """Load the source, find its columns and draw the split; no image is decoded.

        Args:
            split: Use this one (of a checkpoint) instead of drawing.

        Raises:
            UserError: No such data, column or row; a stored split of another source.
        """
        dataset = self.source.load()
        num_rows = len(dataset)
        if split is not None and split.num_rows != num_rows:
            raise UserError(
                f"data.source: the stored split belongs to a source of {split.num_rows} rows, but this one has "
                f"{num_rows}; name the data that the run was trained on."
            )
        columns = self.source.columns(dataset)
        if columns.label is not None:
            self._label, self.class_names = class_codes(dataset, columns.label)
        if self.group_column is not None:
            self._group = group_codes(dataset, self.group_column)
        self._dataset, self._columns = dataset, columns
        self._split_is_drawn = split is None
        self._split = self._draw(num_rows=num_rows, group=self._group) if split is None else split

    def prepare(self, progress: Done = lambda done, total=None: None, *, split: Split | None = None) -> None:
        """Decode the rows of the split, once; find identical images and take the copies out of a drawn held-out side.

        A split that was handed in, here or to `open`, stays as it is: a checkpoint's numbers belong to its own split.

        Args:
            progress: Called with (rows decoded, rows in all) after every few rows, first with (0, rows in all).
            split: As in `open`, which is called here unless it was before.

        Raises:
            UserError: As `open`; an image that can't be read; only copies in held-out.
        """
        if self._dataset is None or split is not None:
            self.open(split)
        assert self._dataset is not None
        assert self._columns is not None
        drawn = self.split
        rows = torch.cat([drawn.audited_index, drawn.public_index]).sort().values
        self._pixels = self._decode(self._dataset, self._columns.image, rows.tolist(), progress)
        self._position = torch.full((drawn.num_rows,), -1)
        self._position[rows] = torch.arange(len(rows))
        if self._columns.caption is not None:
            self._caption = first_captions(self._dataset, self._columns.caption, rows.tolist())
        self._duplicates = find_duplicates(self._pixels, rows, drawn)
        if self._split_is_drawn:
            self._split = remove_duplicates(drawn, self._duplicates)

    @property
    def split(self) -> Split:
        """The rows of each part; after `prepare` without the held-out copies of members."""
        if self._split is None:
            raise RuntimeError("call open() or prepare() first")
        return self._split

    @property
    def duplicates(self) -> Duplicates:
        """What `prepare` found: held-out copies (taken out of a drawn split), other repeats, the hash of all pixels."""
        if self._duplicates is None:
            raise RuntimeError("call prepare() first")
        return self._duplicates

    @property
    def num_classes(self) -> int | None:
        """Number of classes: of their names, or one more than the largest number; None without labels."""
        if self._label is None:
            return None
        return len(self.class_names) if self.class_names is not None else int(self._label.max()) + 1

    def images(self, sample_index: Tensor) -> Image:
        """float32 [-1, 1], (batch, channels, resolution, resolution), on the CPU, as stored: flips are the training's."""
        return to_float(self.pixels(sample_index))

    def pixels(self, sample_index: Tensor) -> Tensor:
        """uint8, (batch, channels, resolution, resolution)."""
        return self._pixels[self._positions(sample_index)]

    def labels(self, sample_index: Tensor) -> Tensor | None:
        """Class labels, int64, (batch,), -1 where a row has none; None where the data have no labels."""
        return None if self._label is None else self._label[sample_index.cpu()]

    def groups(self, sample_index: Tensor) -> Tensor | None:
        """Group numbers, int64, (batch,); None without `group_column`."""
        return None if self._group is None else self._group[sample_index.cpu()]

    def captions(self, sample_index: Tensor) -> list[str] | None:
        """Captions in the order of `sample_index`; None where the data have none."""
        if self._caption is None:
            return None
        return [self._caption[position] for position in self._positions(sample_index).tolist()]

    def _positions(self, sample_index: Tensor) -> Tensor:
        if self._duplicates is None:
            raise RuntimeError("call prepare() first")
        index = sample_index.cpu()
        inside = (index >= 0) & (index < len(self._position))
        positions = torch.where(inside, self._position[index.clamp(0, len(self._position) - 1)], -1)
        if bool((positions < 0).any()):
            raise ValueError(f"sample_index: row {int(index[positions < 0][0])} is not in the split")
        return positions

    def _decode(self, dataset: Dataset, column: str, rows: list[int], progress: Done) -> Tensor:
        pixels = torch.empty(len(rows), self.channels, self.resolution, self.resolution, dtype=torch.uint8)
        cells = dataset.select_columns([column])
        progress(0, len(rows))
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            chunk = rows[start : start + _ROWS_AT_ONCE]
            for offset, (row, cell) in enumerate(zip(chunk, cells[chunk][column])):
                pixels[start + offset] = decode_image(
                    cell, resolution=self.resolution, channels=self.channels, row=row, column=column
                )
            progress(start + len(chunk), len(rows))
        return pixels
