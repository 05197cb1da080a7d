"""Flickr30k: a folder of images and one of the files that its captions come in."""

import csv
import json
import re
from dataclasses import dataclass
from pathlib import Path

import datasets
from datasets import Dataset, Features, Value

from ldm_privacy.data.places import existing_file, existing_folder, named_images, text_of
from ldm_privacy.data.sources import ImageSource
from ldm_privacy.errors import UserError
from ldm_privacy.registry import IMAGE_SOURCES

HEADER = "image_name|"
_LINE = re.compile(r"([^|#]+\.\w+)\s*[|#]\s*(\d+)\s*\|?\s*(.*)")
"""Name, number of the caption, caption; one line of results.csv lacks its second bar."""


@IMAGE_SOURCES.register("flickr30k")
@dataclass(frozen=True, kw_only=True)
class Flickr30k(ImageSource):
    """Flickr30k's images with their captions, rows in the order of file names: the same on every machine.

    Source: Young et al. 2014, "From image descriptions to visual denotations", TACL 2.

    Args:
        captions: The Hub's flickr_annotations_30k.csv (columns `raw`, a list of captions, and `filename`), Kaggle's results.csv
            (name| number| caption), or results_20130124.token (name#number, tab, caption).
        images: The folder of the images (flickr30k-images).
    """

    captions: str
    images: str

    def open(self) -> Dataset:
        file, folder = existing_file(self.captions, "captions"), existing_folder(self.images, "images")
        captions = _read(file)
        names = sorted(captions)
        columns = {"image": named_images(names, folder, by=file), "caption": [captions[name] for name in names]}
        return Dataset.from_dict(columns, features=Features({"image": datasets.Image(), "caption": [Value("string")]}))


def _read(file: Path) -> dict[str, list[str]]:
    """File name -> its captions, in their order."""
    lines = text_of(file).split("\n")  # a caption may hold what else ends a line for str.splitlines
    if lines[0] and not _LINE.fullmatch(lines[0]) and not lines[0].startswith(HEADER):
        return _of_table(file, lines)
    numbered: dict[str, list[tuple[int, str]]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith(HEADER):
            continue
        if (found := _LINE.fullmatch(line)) is None:
            raise UserError(f"{file}, line {number}: no name, number and caption, as in 'x.jpg| 0| A dog runs.'; mend it.")
        numbered.setdefault(found[1], []).append((int(found[2]), found[3].strip()))
    return {name: [caption for _, caption in sorted(each)] for name, each in numbered.items()}


def _of_table(file: Path, lines: list[str]) -> dict[str, list[str]]:
    captions: dict[str, list[str]] = {}
    table = csv.DictReader(lines)
    columns = table.fieldnames or []
    if lacking := [name for name in ("raw", "filename") if name not in columns]:
        raise UserError(
            f"{file}: no column '{lacking[0]}'; its columns are {', '.join(columns)}. Name flickr_annotations_30k.csv, "
            "results.csv or results_20130124.token."
        )
    for row in table:
        where = f"{file}, line {table.line_num}"
        try:
            said = json.loads(row["raw"] or "")
        except ValueError:
            said = None
        if not row["filename"] or not isinstance(said, list) or not all(isinstance(each, str) for each in said):
            raise UserError(f"{where}: no file name, or no list of captions in 'raw'; copy the whole file.")
        if row["filename"] in captions:
            raise UserError(f"{where}: '{row['filename']}' stands in a line before; take one of them out.")
        captions[row["filename"]] = [caption.strip() for caption in said]
    return captions
