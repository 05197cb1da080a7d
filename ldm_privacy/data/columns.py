"""Which columns of a data set hold the image, the label and the caption: named by the user, or found."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import ClassLabel, Dataset, Image, Value
from torch import Tensor

from ldm_privacy.errors import UserError
from ldm_privacy.registry import nearest_name

IMAGE_NAMES = ("image", "img", "images", "picture", "photo", "jpg", "png")
LABEL_NAMES = ("label", "labels", "class", "target", "fine_label", "category", "cls")
CAPTION_NAMES = ("caption", "captions", "text", "prompt", "sentence", "sentences", "description", "txt")


@dataclass(frozen=True)
class Columns:
    """Column names in a data set; None where there is no such column."""

    image: str
    label: str | None = None
    caption: str | None = None


def find_columns(
    dataset: Dataset, *, image: str | None = None, label: str | None = None, caption: str | None = None
) -> Columns:
    """The image, label and caption columns: those named, else those that types and usual names tell.

    The image column is the only one of type Image; among several, or among columns of bytes, the one with a usual
    name (image, img, ...). A label is a ClassLabel, integer or string column with a usual name, or else the only
    ClassLabel. A caption is a column of strings, or of lists of strings, with a usual name. Raises UserError where a named
    column doesn't exist or has the wrong type, or no image column can be told.
    """
    features = dataset.features
    images, classes = ([name for name in features if isinstance(features[name], kind)] for kind in (Image, ClassLabel))
    found = []
    for key, name, what, usual, fits in (
        ("image", image, "an image", images if len(images) == 1 else IMAGE_NAMES, _is_image),
        ("label", label, "a label (ClassLabel, integer or string)", LABEL_NAMES, _is_label),
        ("caption", caption, "a caption (string or list of strings)", CAPTION_NAMES, _is_caption),
    ):
        if name is not None:
            require_column(dataset, name, f"data.source.{key}_column")
            if not fits(features[name]):
                raise UserError(f"data.source: column '{name}' is not {what} but {_describe(features[name])}.")
        found.append(name or next((each for each in usual if each in features and fits(features[each])), None))
    image, label, caption = found
    if image is None:
        problem = f"several image columns ({', '.join(images)})" if images else "no image column found"
        names = ", ".join(features)
        raise UserError(f"data.source: {problem}. Name one with data.source.image_column=NAME. Columns: {names}.")
    return Columns(image, label or (classes[0] if len(classes) == 1 else None), caption)


def require_column(dataset: Dataset, name: str, key: str) -> None:
    """UserError with the columns there are, and the nearest, where the data set has no column of that name."""
    if name not in dataset.column_names:
        names = dataset.column_names
        raise UserError(f"{key}: no column '{name}' in the data.{nearest_name(name, names)} Columns: {', '.join(names)}.")


def class_codes(dataset: Dataset, column: str) -> tuple[Tensor, list[str] | None]:
    """Labels as integers, (rows,) int64, and the class names where the column has them; a missing label is -1.

    Strings are numbered in alphabetical order and are their own names; integers stay as they are.
    """
    feature = dataset.features[column]
    values = dataset.select_columns([column])[:][column]
    names = list(feature.names) if isinstance(feature, ClassLabel) else None
    if _is_string(feature):
        names = sorted({value for value in values if value is not None})
        number = {name: code for code, name in enumerate(names)}
        values = [number.get(value) for value in values]
    return torch.tensor([-1 if value is None else int(value) for value in values], dtype=torch.int64), names


def group_codes(dataset: Dataset, column: str) -> Tensor:
    """Groups, (rows,) int64, numbered in sorted order of their values; of lists of captions, in the order of their first rows.

    Two rows whose lists share a caption, to the letter, are of one group, and so are those that others join; a row without
    captions is one of its own. Raises UserError for a row without a group.
    """
    require_column(dataset, column, "data.group_column")
    feature = dataset.features[column]
    if _is_caption(feature) and not _is_string(feature):
        return _joined_by(all_captions(dataset, column, range(len(dataset))))
    values = dataset.select_columns([column])[:][column]
    if None in values:
        raise UserError(f"data.group_column: row {values.index(None)} has no value in column '{column}'; every row needs one.")
    array = np.asarray(values, dtype=None if isinstance(feature, Value | ClassLabel) else object)
    if array.dtype == object:
        holds = f"column '{column}' holds {_describe(feature)}"
        raise UserError(f"data.group_column: {holds}; a group is one number or one string a row.")
    return torch.from_numpy(np.unique(array, return_inverse=True)[1].astype(np.int64))


def all_captions(dataset: Dataset, column: str, rows: Sequence[int]) -> list[list[str]]:
    """Every caption of each row: the string, or the list of strings, without those that are empty; [] where none is left."""
    values = dataset.select_columns([column])[list(rows)][column]
    lists = [value if isinstance(value, list) else [value] for value in values]
    return [[caption for caption in each if caption and not caption.isspace()] for each in lists]


def _joined_by(captions: list[list[str]]) -> Tensor:
    """The connected components of rows and their captions."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    number: dict[str, int] = {}
    pairs = [(row, number.setdefault(caption, len(number))) for row, each in enumerate(captions) for caption in each]
    row, caption = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    size = len(captions) + len(number)
    edges = coo_array((np.ones(len(row), dtype=bool), (row, len(captions) + caption)), shape=(size, size))
    return torch.from_numpy(connected_components(edges, directed=False)[1][: len(captions)].astype(np.int64))


def _is_image(feature: Any) -> bool:
    # Parquet files written without the Hub's metadata hold the bytes bare, or in a struct with the path.
    if isinstance(feature, dict):
        return "bytes" in feature and _is_image(feature["bytes"])
    return isinstance(feature, Image) or (isinstance(feature, Value) and feature.dtype in ("binary", "large_binary"))


def _is_label(feature: Any) -> bool:
    is_whole = isinstance(feature, Value) and feature.dtype.startswith(("int", "uint", "bool"))
    return is_whole or isinstance(feature, ClassLabel) or _is_string(feature)


def _is_caption(feature: Any) -> bool:
    return _is_string(feature) or _is_string(getattr(feature, "feature", None))


def _is_string(feature: Any) -> bool:
    return isinstance(feature, Value) and feature.dtype in ("string", "large_string")


def _describe(feature: Any) -> str:
    return feature.dtype if isinstance(feature, Value) else type(feature).__name__
