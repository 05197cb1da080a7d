"""Files of the kinds that Hugging Face `datasets` reads and prepares in its cache, as they are now."""

import contextlib
import glob
import hashlib
import os
import re
import tarfile
from collections.abc import Iterator

import datasets
from datasets import Dataset

from ldm_privacy.errors import UserError, reason_of

_ENDINGS = {"parquet": "parquet", "webdataset": "tar"}
_NUMBERED = re.compile(r"(.*-)(\d+)(-of-)(\d+)(\D*)")
"""As the Hub's files are called: train-00000-of-00003.parquet."""


def prepared(kind: str, patterns: str | list[str]) -> Dataset:
    """The rows of files of a kind ("parquet", "webdataset"), in the order of the files.

    Args:
        kind: What `datasets` calls it.
        patterns: A path, a glob pattern, or a list of them; what a pattern matches is sorted by path.

    Raises UserError: no such files; of numbered ones that a pattern matches some aren't there; one can't be read.
    """
    files = []
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        expanded = os.path.expanduser(pattern)
        if os.path.isdir(expanded):
            raise UserError(
                f"data.source.files: '{pattern}' is a folder; name its files, as in "
                f"'{pattern.rstrip('/')}/*.{_ENDINGS[kind]}', or use data.source.class=folder (of images) or "
                "saved, with data.source.path."
            )
        is_one = os.path.isfile(expanded)
        matches = [expanded] if is_one else sorted(glob.glob(expanded, recursive=True))
        if not matches:
            raise UserError(f"data.source.files: no file matches '{pattern}' (from the directory {os.getcwd()}).")
        if not is_one and (missing := _missing(matches)):
            raise UserError(
                f"data.source.files: {len(missing)} of the files whose names count them aren't there, the first is "
                f"{missing[0]}; copy them, or name those that you mean in a list."
            )
        files += matches
    if not files:
        raise UserError(f"data.source.files: the list is empty; name at least one {_ENDINGS[kind]} file.")
    with explaining(f"data.source.files: can't read {_some(files)} as {kind}"):
        paths = [os.path.abspath(file) for file in files]
        escaped = [glob.escape(path) for path in paths]
        return datasets.load_dataset(kind, name=_identity(paths), data_files={"train": escaped}, split="train")


@contextlib.contextmanager
def explaining(problem: str, advice: str = "") -> Iterator[None]:
    """Turn what `datasets` raises inside into a UserError of one line."""
    try:
        yield
    except (KeyError, OSError, ValueError, tarfile.TarError, datasets.exceptions.DatasetsError) as error:
        raise UserError(f"{problem} ({reason_of(error.__cause__ or error)}).{advice}") from error


def _missing(files: list[str]) -> list[str]:
    """Of sets whose names say how many they are, those that aren't there."""
    sets = {(*found.group(1, 3, 4, 5), len(found[2])) for file in files if (found := _NUMBERED.fullmatch(file))}
    whole = {
        f"{before}{number:0{width}}{of}{total}{after}"
        for before, of, total, after, width in sets
        for number in range(int(total))
    }
    return sorted(whole - {*files})


def _some(files: list[str]) -> str:
    return files[0] if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"


def _identity(paths: list[str]) -> str:
    """What these files are now. The library's own cache knows them by name and time alone, and a copy may keep both."""
    digest = hashlib.sha256()
    for path in paths:
        status = os.stat(path)
        fields = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
        digest.update(f"{path} {fields}\n".encode())
    return digest.hexdigest()[:32]
