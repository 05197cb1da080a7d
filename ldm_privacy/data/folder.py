"""A folder of image files. It is read anew each time, so nothing that was there before can come back from a cache."""

import itertools
import json
import logging
import os
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.csv
from datasets import ClassLabel, Dataset, Features

from ldm_privacy.data.endings import image_endings
from ldm_privacy.data.places import existing_folder, leads_out
from ldm_privacy.data.sources import ImageSource
from ldm_privacy.errors import UserError, reason_of
from ldm_privacy.registry import IMAGE_SOURCES

log = logging.getLogger("ldm_privacy")

METADATA = ("metadata.csv", "metadata.jsonl")


@IMAGE_SOURCES.register("folder")
@dataclass(frozen=True, kw_only=True)
class Folder(ImageSource):
    """A folder of image files, rows in the order of their paths; links to files and folders are followed.

    Subfolders are classes, where all images lie equally deep. A `metadata.jsonl` or `metadata.csv`, in the folder or in
    subfolders, adds captions, groups and other columns to the files that its `file_name` names, relative to where it lies; then
    those are the rows, in the order of their paths too, and subfolders are no classes (the "imagefolder" format of Hugging Face
    datasets). Whatever in the folder is not read is counted and logged, in one line.

    Args:
        path: The folder.
    """

    path: str

    def open(self) -> Dataset:
        root = existing_folder(self.path)
        found = _Found()
        _look_through(str(root), "", found, {_identity(str(root))})
        if found.metadata:
            columns, features = _described(root, found)
        else:
            columns, features = {"image": [str(root / name) for name in sorted(found.images)]}, {"image": datasets.Image()}
            if labels := found.labels():
                columns["label"], features["label"] = labels, ClassLabel(names=sorted(set(labels)))
        if found.unread:
            log.warning("data.source.path: not read of %s: %s.", root, "; ".join(found.unread_kinds()))
        if not columns["image"]:
            raise UserError(
                f"data.source.path: no images in {root}: no file has an image's ending, such as .png, .jpg or .tif."
            )
        return Dataset.from_dict(columns, features=Features(features))


@dataclass
class _Found:
    """What lies in a folder, as paths from it.

    Attributes:
        images: Files with an image's ending.
        metadata: Files that describe images.
        unread: Why -> what is left out.
    """

    images: list[str] = field(default_factory=list)
    metadata: list[str] = field(default_factory=list)
    unread: dict[str, list[str]] = field(default_factory=dict)

    def leave_out(self, why: str, name: str) -> None:
        self.unread.setdefault(why, []).append(name)

    def unread_kinds(self) -> Iterator[str]:
        for why, names in self.unread.items():
            yield f"{len(names)} {why} (the first: {min(names)})"

    def labels(self) -> list[str]:
        """The folder of each image, sorted by path; none where there is one alone, or images lie unequally deep."""
        names = [posixpath.basename(posixpath.dirname(name)) for name in sorted(self.images)]
        if len(set(names)) < 2:
            return []
        if len({name.count("/") for name in self.images}) > 1:
            highest = min(self.images, key=lambda name: (name.count("/"), name))
            log.warning("data.source.path: subfolders are no classes, for images lie unequally deep (%s highest).", highest)
            return []
        return names


def _look_through(folder: str, above: str, found: _Found, trail: set[tuple[int, int]]) -> None:
    """Sort what lies in a folder; `trail` holds the identities of it and of the folders above it."""
    endings = image_endings()
    for entry in os.scandir(folder):
        name = above + entry.name
        if entry.name.startswith("."):
            found.leave_out("hidden", name)
        elif entry.is_dir():
            if (identity := _identity(entry.path)) in trail:
                found.leave_out("links to a folder above them", name)
            else:
                _look_through(entry.path, f"{name}/", found, {*trail, identity})
        elif not entry.is_file():
            found.leave_out("links to nothing, or no files", name)
        elif entry.name in METADATA:
            found.metadata.append(name)
        elif os.path.splitext(entry.name)[1].lower() in endings:
            found.images.append(name)
        else:
            found.leave_out("without an image's ending", name)


def _identity(folder: str) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _described(root: Path, found: _Found) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    """The columns of all metadata files together, and their features, with the image's in place of `file_name`."""
    tables, files = list[pa.Table](), list[str]()
    places = sorted(posixpath.dirname(name) for name in found.metadata)
    if both := [place for place, other in itertools.pairwise(places) if place == other]:
        raise UserError(f"{root / both[0]}: {' and '.join(METADATA)} lie there both; keep one.")
    for name in sorted(found.metadata):
        file = root / name
        table = _read_csv(file) if file.suffix == ".csv" else _read_jsonl(file)
        if "file_name" not in table.column_names:
            columns = ", ".join(table.column_names)
            raise UserError(f"{file}: no column 'file_name', which says what image a row describes. Columns: {columns}.")
        if "image" in table.column_names:
            raise UserError(f"{file}: the column 'image' is taken by the files; give it another name.")
        names = table["file_name"].to_pylist()
        paths = [_path_of(file, row, name) for row, name in enumerate(names)]
        if missing := [row for row, path in enumerate(paths) if not path.is_file()]:
            more = f", nor those that {len(missing) - 1} further rows name" if len(missing) > 1 else ""
            raise UserError(
                f"{file}, row {missing[0]}: there is no file '{names[missing[0]]}' in {file.parent}{more}; mend file_name or "
                "take the row out."
            )
        files += map(str, paths)
        tables.append(table.drop_columns(["file_name"]))
    if not files:
        raise UserError(
            f"{root / found.metadata[0]}: no rows. Add one for each image, or take the file away: then all {len(found.images)} "
            "images are read."
        )
    if twice := len(files) - len(set(files)):
        log.warning("data.source.path: %d rows of the metadata in %s name an image that another row names.", twice, root)
    described = {Path(file).relative_to(root).as_posix() for file in files}
    for name in sorted({*found.images} - described):
        found.leave_out("images that no row of the metadata names", name)
    try:
        whole = pa.concat_tables(tables, promote_options="default")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        names = ", ".join(sorted(found.metadata))
        raise UserError(f"data.source.path: {names} in {root} don't agree in their columns ({reason_of(error)}).") from None
    order = sorted(range(len(files)), key=files.__getitem__)  # whatever the lines' order, or a seed would draw another split
    table = {"image": [files[row] for row in order], **whole.take(order).to_pydict()}
    return table, {"image": datasets.Image(), **Features.from_arrow_schema(whole.schema)}


def _path_of(metadata: Path, row: int, name: object) -> Path:
    """Where the file that a row names would lie."""
    where = f"{metadata}, row {row}"
    if not isinstance(name, str) or not name:
        raise UserError(
            f"{where}: file_name is {'missing' if name in (None, '') else f'{name!r}, no text'}; name an image file."
        )
    if leads_out(name):
        last = PureWindowsPath(name).name
        raise UserError(
            f"{where}: file_name '{name}' leads out of the folder; write it from where {metadata.name} lies, such as '{last}'."
        )
    return metadata.parent / posixpath.normpath(name)


def _read_csv(file: Path) -> pa.Table:
    try:
        table = pyarrow.csv.read_csv(
            file,
            read_options=pyarrow.csv.ReadOptions(use_threads=False),  # so that an error names its row
            parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types={"file_name": pa.string()}, strings_can_be_null=True, quoted_strings_can_be_null=False
            ),
        )
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{file}: can't be read as comma-separated UTF-8 text with a header ({reason_of(error)}).") from None
    if twice := [name for name in table.column_names if table.column_names.count(name) > 1]:
        raise UserError(f"{file}: two columns are called '{twice[0]}'.")
    if others := [each.name for each in table.schema if pa.types.is_binary(each.type)]:
        raise UserError(f"{file}: column '{others[0]}' is no UTF-8 text; store the file as that.")
    # A date is a text to whom it groups.
    texts = [pa.field(each.name, pa.string() if pa.types.is_temporal(each.type) else each.type) for each in table.schema]
    return table.cast(pa.schema(texts))


def _read_jsonl(file: Path) -> pa.Table:
    rows: list[dict[str, Any]] = []
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line) if line.strip() else None
            except ValueError as error:
                raise UserError(f"{file}, line {number}: no JSON ({reason_of(error)}).") from None
            if not isinstance(row, dict | None):
                raise UserError(f'{file}, line {number}: no names and values, as in {{"file_name": "0.png"}}.')
            rows += [row] if row else []
    columns = {}
    for name in dict.fromkeys(key for row in rows for key in row) or ["file_name"]:
        try:
            columns[name] = pa.array([row.get(name) for row in rows])
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise UserError(f"{file}: the values of '{name}' are of several kinds ({reason_of(error)}).") from None
    return pa.table(columns)
