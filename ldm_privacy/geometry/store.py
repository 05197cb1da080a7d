"""Tensors on disk that belong to a codec and samples: one file per fingerprint, whole or not there at all."""

import hashlib
import itertools
import json
import logging
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ldm_privacy.errors import UserError
from ldm_privacy.processes import gather, is_main, on_main, share_of

log = logging.getLogger("ldm_privacy")

FORMAT = "ldm_privacy store 1"


def fingerprint(state_dict: Mapping[str, Tensor], settings: Mapping[str, Any], sample_index: Tensor) -> str:
    """What a file of the store belongs to: sha256 over weights, settings and samples, in hexadecimal.

    Args:
        state_dict: The codec's weights, in any order, on any device.
        settings: Quantity, estimator, seed, split, channel map: whatever else decides the numbers. Plain values for JSON.
        sample_index: (samples,), in the order of the file's rows.
    """
    digest = hashlib.sha256(FORMAT.encode())
    for name in sorted(state_dict):
        value = state_dict[name]
        digest.update(f"\n{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(as_bytes(value))
    digest.update(json.dumps(settings, sort_keys=True).encode())
    digest.update(as_bytes(sample_index.to(torch.int64)))
    return digest.hexdigest()


class Store:
    """A folder of files with one quantity of many samples each, `<fingerprint>.safetensors`: influence, distortion, latents.

    A file is written under another name, row by row, flushed to the disk and renamed, so a kill at any moment leaves the old
    file or the new one. A lock per fingerprint (released by the system when its process dies) makes a second process wait for
    the first and take its result. Reuse is logged at level INFO to the log "ldm_privacy".

    Args:
        folder: Made on the first write.
        noun: What messages call the quantity.
    """

    def __init__(self, folder: Path | str, noun: str):
        self.folder = Path(folder)
        self.noun = noun

    def path(self, fingerprint: str) -> Path:
        """The file of a fingerprint."""
        return self.folder / f"{fingerprint}.safetensors"

    def get_or_compute(
        self, fingerprint: str, sample_index: Tensor, compute: Callable[[], Iterable[Mapping[str, Tensor]]]
    ) -> tuple[Mapping[str, Tensor], bool]:
        """The stored tensors, by name, or those of `compute`, which are stored; and whether they were found.

        `compute` gives rows batch by batch, which go to the disk as they come. What is stored comes back as `load` gives it: no
        more of it than one batch is held in memory. All processes call this; `compute` gives each one's own rows
        (`share_of`), and all get the rows of all, of one file on a disk that they share.

        A damaged file is computed anew, with a warning. Where the folder can't be written, or has no room (which is known
        before anything but the first batch is computed), the result is returned all the same, in memory, with a warning.

        Raises:
            UserError: The file under this name was written for other weights, settings or samples; the disk fails midway.
        """
        with ExitStack() as stack:
            why_not = on_main(lambda: self._lock(fingerprint, stack))
            if why_not is None and on_main(lambda: self.load(fingerprint, sample_index) is not None):
                found = self.load(fingerprint, sample_index)
                assert found is not None
                return found, True
            batches = iter(compute())
            first = next(batches)
            if why_not is None:
                why_not, temporary = on_main(lambda: self._reserved(fingerprint, sample_index, first))
            if why_not is not None:
                if is_main():
                    log.warning("The %s is not stored: %s can't be written (%s).", self.noun, self.folder, why_not)
                rows = gather([first, *batches])
                return {name: torch.cat([batch[name] for mine in rows for batch in mine]) for name in first}, False
            try:
                self._fill(temporary, share_of(len(sample_index)), itertools.chain([first], batches))
                gather(None)  # all rows are there
                on_main(lambda: self._put_in_place(temporary, fingerprint))
            finally:
                temporary.unlink(missing_ok=True)
            stored = self.load(fingerprint, sample_index)
            assert stored is not None
            return stored, False

    def load(self, fingerprint: str, sample_index: Tensor) -> Mapping[str, Tensor] | None:
        """The stored tensors on the CPU; None where there are none, or only damaged ones (which is said).

        They are not read but mapped: what is looked at comes from the disk, and goes again where memory is short. What is
        written into them stays here.

        Raises:
            UserError: The file's own record names another fingerprint or other samples.
        """
        path = self.path(fingerprint)
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        except (SafetensorError, OSError, ValueError) as error:
            log.warning("%s is damaged (%s); the %s is computed anew.", path, error, self.noun)
            return None
        belongs = metadata.get("format") == FORMAT and metadata.get("fingerprint") == fingerprint
        if not belongs or not torch.equal(tensors.pop("sample_index"), sample_index.cpu().to(torch.int64)):
            raise UserError(
                f"{path}: this {self.noun} was written for another codec, other settings or other samples. Remove the file, or "
                "give the store another folder."
            )
        return tensors

    def _reserved(self, fingerprint: str, sample_index: Tensor, like: Mapping[str, Tensor]) -> tuple[str | None, Path]:
        """A file with room for rows like those of every sample; why it can't be, where it can't."""
        path = self.folder / f".{fingerprint}.{os.getpid()}.tmp"
        count, index = len(sample_index), sample_index.cpu().to(torch.int64)
        shapes = {"sample_index": index, **like}
        # Larger numbers first, so that each tensor lies where its numbers can be read in place.
        names = sorted(shapes, key=lambda name: (-shapes[name].element_size(), name))
        header: dict[str, Any] = {"__metadata__": {"format": FORMAT, "fingerprint": fingerprint}}
        end = 0
        for name in names:
            shape = [count, *shapes[name].shape[1:]]
            start, end = end, end + math.prod(shape) * shapes[name].element_size()
            header[name] = {"dtype": DTYPES[shapes[name].dtype], "shape": shape, "data_offsets": [start, end]}
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for left_by_a_kill in self.folder.glob(f".{fingerprint}.*.tmp"):
                left_by_a_kill.unlink(missing_ok=True)
            with open(path, "wb") as file:
                reserve(file, 8 + len(text) + end)
                file.write(len(text).to_bytes(8, "little") + text)
            self._fill(path, slice(0, count), [{"sample_index": index}])
        except OSError as error:
            with suppress(OSError):
                path.unlink(missing_ok=True)
            return error.strerror or str(error), path
        return None, path

    def _fill(self, path: Path, share: slice, batches: Iterable[Mapping[str, Tensor]]) -> None:
        """Write rows into a file that is reserved, from the first of the share on."""
        try:
            with open(path, "r+b") as file:
                size = int.from_bytes(file.read(8), "little")
                header, row = json.loads(file.read(size)), share.start
                for batch in batches:
                    for name, value in batch.items():
                        of_row = value[:1].numel() * value.element_size() if len(value) else 0
                        file.seek(8 + size + header[name]["data_offsets"][0] + row * of_row)
                        file.write(as_bytes(value))
                    row += len(value)
        except OSError as error:
            raise UserError(f"{path}: the {self.noun} can't be stored ({error.strerror or error}).") from error

    def _put_in_place(self, temporary: Path, fingerprint: str) -> None:
        with open(temporary, "r+b") as file:
            os.fsync(file.fileno())
        os.replace(temporary, self.path(fingerprint))

    def _lock(self, fingerprint: str, stack: ExitStack) -> str | None:
        """Held until the stack ends; why it can't be, where it can't."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / f"{fingerprint}.lock")
            try:
                held = lock.acquire(timeout=0)
            except Timeout:
                log.info("Waiting for another process that computes the same %s (%s).", self.noun, lock.lock_file)
                held = lock.acquire()
        except OSError as error:
            return str(error.strerror or error)
        stack.enter_context(held)
        return None


DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""What safetensors calls them."""


def in_file(batches: Iterable[Tensor], folder: Path) -> Tensor:
    """Batches of rows, some at least, as one tensor that lies in a file of that folder, mapped as `Store.load` maps one.

    The file has no name: it is gone with the tensor, or with the process, however that ends.

    Raises:
        UserError: It can't be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            for batch in batches:
                file.write(as_bytes(batch))
            file.flush()
            whole = torch.from_numpy(np.memmap(file, mode="c"))  # a private copy of what is written into
    except OSError as error:
        raise UserError(f"{folder}: latents can't be kept in a file there ({error.strerror or error}).") from error
    return whole.view(batch.dtype).reshape(-1, *batch.shape[1:])


def as_bytes(value: Tensor) -> memoryview:
    """The numbers of a tensor as they lie in memory, row by row; no copy where they do so already, on the CPU."""
    return value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def reserve(file: BinaryIO, size: int) -> None:
    """Make it so large, with room on the disk for it. Raises OSError where there is none."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
    else:
        file.truncate(size)
