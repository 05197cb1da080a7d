"""ImageNet: class folders, a balanced subset of them, and the sides that come with it."""

import hashlib
import os
from dataclasses import dataclass
from typing import Annotated

import datasets
from datasets import ClassLabel, Dataset, Features, Value
from pydantic import Field, NonNegativeInt

from ldm_privacy.data.endings import image_endings
from ldm_privacy.data.places import existing_folder
from ldm_privacy.data.sources import ImageSource
from ldm_privacy.data.split import HELDOUT, MEMBER
from ldm_privacy.errors import UserError
from ldm_privacy.registry import IMAGE_SOURCES


@IMAGE_SOURCES.register("imagenet")
@dataclass(frozen=True, kw_only=True)
class ImageNet(ImageSource):
    """Class folders, so many images of each, chosen by a hash of the file's name without its ending: the same on every machine.

    The column "side" says who is a member: the first `per_class` of each class in the order of the hash. Held-out are the first
    `heldout_per_class` of `heldout_path`'s folder of that class; without `heldout_path`, those that follow the members in the
    same one: then the sides are exchangeable, and the members are the same. Rows: members by class and name, then held-out.

    Args:
        path: The folder of class folders (train/, with n01440764/ and so on).
        per_class: Members of each class.
        heldout_path: Another such folder (val/, sorted into class folders); None: `path`.
        heldout_per_class: Held-out images of each class; 0: no sides come with it, and they are drawn of `path`'s rows.
    """

    path: str
    per_class: Annotated[int, Field(gt=0)] = 100
    heldout_path: str | None = None
    heldout_per_class: NonNegativeInt = 10

    @property
    def side_column(self) -> str | None:
        return "side" if self.heldout_per_class else None

    def open(self) -> Dataset:
        if self.heldout_path is not None and not self.heldout_per_class:
            raise UserError(
                "data.source.heldout_path: with data.source.heldout_per_class=0 nothing is taken of it; add "
                "data.source.heldout_path=null, or give a number."
            )
        num_of_path = self.per_class + (self.heldout_per_class if self.heldout_path is None else 0)
        chosen = _first_by_hash(self.path, "path", num_of_path)
        heldout = {name: files[self.per_class :] for name, files in chosen.items()}
        if self.heldout_path is not None:
            heldout = _first_by_hash(self.heldout_path, "heldout_path", self.heldout_per_class)
            if differing := sorted({*chosen} ^ {*heldout}):
                raise UserError(
                    f"data.source.heldout_path: {len(differing)} class folders are in {self.path} or in {self.heldout_path} "
                    f"alone, the first is {differing[0]}; both need the same classes."
                )
        members = {name: files[: self.per_class] for name, files in chosen.items()}
        rows = [
            (file, name, side)
            for side, classes in ((MEMBER, members), (HELDOUT, heldout))
            for name in sorted(classes)
            for file in sorted(classes[name])
        ]
        columns = {name: list(values) for name, values in zip(("image", "label", "side"), zip(*rows))}
        features = {"image": datasets.Image(), "label": ClassLabel(names=sorted(members)), "side": Value("string")}
        return Dataset.from_dict(columns, features=Features(features))


def _first_by_hash(path: str, key: str, count: int) -> dict[str, list[str]]:
    """Class -> the paths of its first `count` images, in the order of the hash."""
    root, endings = existing_folder(path, key), image_endings()

    def images(folder: os.DirEntry[str]) -> list[str]:
        stems = {
            name: stem for name in os.listdir(folder) for stem, ending in [os.path.splitext(name)] if ending.lower() in endings
        }
        by_hash = sorted((hashlib.sha256(stem.encode()).digest(), name) for name, stem in stems.items() if stem[0] != ".")
        return [os.path.join(folder.path, name) for _, name in by_hash]

    found = {entry.name: images(entry) for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith(".")}
    if not any(found.values()):
        raise UserError(
            f"data.source.{key}: no folder in {root} holds images; name the one of the class folders (n01440764, ...), and "
            "sort images that lie in none into theirs."
        )
    if short := sorted(name for name, files in found.items() if len(files) < count):
        raise UserError(
            f"data.source.{key}: {len(short)} of the {len(found)} class folders in {root} hold fewer than {count} images, the "
            f"first, {short[0]}, {len(found[short[0]])}; copy the rest, or lower data.source.per_class or heldout_per_class."
        )
    return {name: files[:count] for name, files in found.items()}
