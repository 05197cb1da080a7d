"""Files and folders that a source names: whether they are there, and whether all that one file names lies in a folder."""

import logging
import os
import posixpath
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from ldm_privacy.data.endings import image_endings
from ldm_privacy.errors import UserError

log = logging.getLogger("ldm_privacy")


def existing_folder(path: str, key: str = "path") -> Path:
    """The folder at that path, absolute. Raises UserError, under `data.source.KEY`, where there is none."""
    folder = Path(path).expanduser().absolute()
    if not folder.is_dir():
        problem = f"{folder} is a file, not a folder" if folder.exists() else f"there is no folder {folder}"
        raise UserError(f"data.source.{key}: {problem}; name the one that holds the data.")
    return folder


def existing_file(path: str, key: str) -> Path:
    """The file at that path, absolute. Raises UserError, under `data.source.KEY`, where there is none."""
    file = Path(path).expanduser().absolute()
    if not file.is_file():
        problem = f"{file} is a folder, not a file" if file.exists() else f"there is no file {file}"
        raise UserError(f"data.source.{key}: {problem}; name the one that describes the images.")
    return file


def text_of(file: Path) -> str:
    """What a text file holds. Raises UserError where it is no UTF-8 text."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{file}: no UTF-8 text; store the file as that.") from None


def leads_out(name: str) -> bool:
    """Whether a name stands for what isn't below the folder that it is looked up in."""
    is_absolute = PurePosixPath(name).is_absolute() or PureWindowsPath(name).is_absolute()
    return is_absolute or posixpath.normpath(name).startswith("../")


def named_images(names: Sequence[str], folder: Path, *, by: Path) -> list[str]:
    """The paths of the images of those names in `folder`; images beside them that have no name are counted and logged.

    Args:
        names: As the file `by` has them, relative to the folder.
        folder: What `data.source.images` names.

    Raises UserError: no names; some aren't there: how many, and the first.
    """
    if not names:
        raise UserError(f"{by}: it names no images; take the whole file.")
    if outside := [name for name in names if leads_out(name)]:
        raise UserError(f"{by}: '{outside[0]}' leads out of {folder}; images are named from there.")
    present = set(os.listdir(folder))
    if missing := [name for name in names if name not in present and not (folder / name).is_file()]:
        raise UserError(
            f"data.source.images: {len(missing):,} of the {len(names):,} images that {by} names aren't in {folder}; the first "
            f"is '{missing[0]}'. Copy all of them there, or name the folder that has them."
        )
    endings = image_endings()
    if unnamed := sorted(name for name in present - set(names) if os.path.splitext(name)[1].lower() in endings):
        log.warning(
            "data.source.images: not read of %s: %d images that %s doesn't name (the first: %s).",
            *(folder, len(unnamed), by.name, unnamed[0]),
        )
    return [str(folder / name) for name in names]
