"""COCO: a folder of images and the JSON file of their captions."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
from datasets import Dataset, Features, Value

from ldm_privacy.data.places import existing_file, existing_folder, named_images, text_of
from ldm_privacy.data.sources import ImageSource
from ldm_privacy.errors import UserError, reason_of
from ldm_privacy.registry import IMAGE_SOURCES

_PARTS = {"images": {"id": int, "file_name": str}, "annotations": {"id": int, "image_id": int, "caption": str}}


@IMAGE_SOURCES.register("coco")
@dataclass(frozen=True, kw_only=True)
class Coco(ImageSource):
    """COCO's images with their captions, rows in the order of file names: the same on every machine.

    "caption" has all captions of an image, in the order of their ids. Source: Lin et al. 2014, 1405.0312.

    Args:
        annotations: captions_val2017.json, or a file of that form.
        images: The folder that its `file_name`s are relative to (val2017).
    """

    annotations: str
    images: str

    def open(self) -> Dataset:
        file, folder = existing_file(self.annotations, "annotations"), existing_folder(self.images, "images")
        images, annotations = _read(file)
        captions: dict[int, list[str]] = {each["id"]: [] for each in images}
        if strangers := [each for each in annotations if each["image_id"] not in captions]:
            raise UserError(
                f"{file}: {len(strangers)} captions are of images that it doesn't list, the first of image_id "
                f"{strangers[0]['image_id']}; take the whole file."
            )
        for each in sorted(annotations, key=lambda annotation: annotation["id"]):
            captions[each["image_id"]].append(each["caption"].strip())
        images.sort(key=lambda image: image["file_name"])
        columns = {
            "image": named_images([each["file_name"] for each in images], folder, by=file),
            "caption": [captions[each["id"]] for each in images],
        }
        return Dataset.from_dict(columns, features=Features({"image": datasets.Image(), "caption": [Value("string")]}))


def _read(file: Path) -> list[list[dict[str, Any]]]:
    """Its lists of images and of captions, each entry with what `_PARTS` says."""
    try:
        content = json.loads(text_of(file))
    except ValueError as error:
        raise UserError(f"{file}: no JSON ({reason_of(error)}); copy the whole file.") from None
    found = []
    for part, kinds in _PARTS.items():
        entries = content.get(part) if isinstance(content, dict) else None
        if not isinstance(entries, list):
            raise UserError(f"{file}: no list '{part}' in it; name COCO's captions, such as captions_val2017.json.")
        for number, entry in enumerate(entries):
            for name, kind in kinds.items():
                if not isinstance(entry, dict) or not isinstance(entry.get(name), kind):
                    what = {int: "number", str: "text"}[kind]
                    raise UserError(
                        f"{file}: entry {number} of '{part}' has no {what} '{name}'; name COCO's captions, such as "
                        "captions_val2017.json."
                    )
        found.append(entries)
    return found
