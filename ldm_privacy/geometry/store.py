"""Tensors on disk that belong to a codec and samples: one file per fingerprint, whole or not there at all."""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ldm_privacy.errors import UserError
from ldm_privacy.processes import gather_on_main, is_main, on_main, share_of, world_size

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
        value = state_dict[name].detach().cpu().contiguous()
        digest.update(f"\n{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    digest.update(json.dumps(settings, sort_keys=True).encode())
    digest.update(sample_index.cpu().to(torch.int64).contiguous().numpy().tobytes())
    return digest.hexdigest()


class Store:
    """A folder of files with one quantity of many samples each, `<fingerprint>.safetensors`: influence, distortion, latents.

    A file is written under another name, flushed to the disk and renamed, so a kill at any moment leaves the old file or
    the new one. A lock per fingerprint (released by the system when its process dies) makes a second process wait for
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
        self, fingerprint: str, sample_index: Tensor, compute: Callable[[], Mapping[str, Tensor]]
    ) -> tuple[Mapping[str, Tensor], bool]:
        """The stored tensors, by name, or those of `compute`, which are stored; and whether they were found.

        A damaged file is computed anew, with a warning. Where the folder can't be written the result is returned all the
        same, with a warning.

        Raises:
            UserError: The file under this name was written for other weights, settings or samples.
        """
        try:
            held = self._acquire(fingerprint)
        except OSError as error:
            why = error.strerror or error
            log.warning("The %s is not stored: %s can't be written (%s).", self.noun, self.folder, why)
            return compute(), False
        with held:
            stored = self.load(fingerprint, sample_index)
            if stored is not None:
                path = self.path(fingerprint)
                log.info("%s of %d samples reused from %s.", self.noun.capitalize(), len(sample_index), path)
                return stored, True
            computed = compute()
            for left_by_a_kill in self.folder.glob(f".{fingerprint}.*.tmp"):
                left_by_a_kill.unlink(missing_ok=True)
            try:
                self.save(fingerprint, sample_index, computed)
            except UserError as error:
                log.warning("%s", error)
            return computed, False

    def shared(
        self, fingerprint: str, sample_index: Tensor, compute: Callable[[], Mapping[str, Tensor]]
    ) -> Mapping[str, Tensor]:
        """This process's rows (`share_of`): found, or those of `compute`, which are stored as one file for all processes.

        All processes call it. `compute` returns its own rows, on the CPU. Errors and warnings as of `get_or_compute`.
        """
        if world_size() == 1:
            return self.get_or_compute(fingerprint, sample_index, compute)[0]
        stored = on_main(lambda: self.load(fingerprint, sample_index))
        if stored is not None:
            share = share_of(len(sample_index))
            return {name: value[share] for name, value in stored.items()}
        mine = compute()
        shards = gather_on_main(dict(mine))
        if is_main():
            self.get_or_compute(
                fingerprint, sample_index, lambda: {name: torch.cat([each[name] for each in shards]) for name in mine}
            )
        return mine

    def load(self, fingerprint: str, sample_index: Tensor) -> Mapping[str, Tensor] | None:
        """The stored tensors on the CPU; None where there are none, or only damaged ones (which is said).

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

    def save(self, fingerprint: str, sample_index: Tensor, tensors: Mapping[str, Tensor]) -> Path:
        """Write tensors by name; the file that was there stays whole until the new one is.

        Raises:
            UserError: It can't be written (no space, no permission).
        """
        everything = {"sample_index": sample_index.to(torch.int64), **tensors}
        content = save(
            {name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in everything.items()},
            metadata={"format": FORMAT, "fingerprint": fingerprint},
        )
        path = self.path(fingerprint)
        temporary = path.with_name(f".{fingerprint}.{os.getpid()}.tmp")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                with open(temporary, "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"{path}: the {self.noun} can't be stored ({error.strerror or error}).") from error
        return path

    def _acquire(self, fingerprint: str) -> AbstractContextManager[object]:
        """The lock, held until its context ends."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / f"{fingerprint}.lock")
        try:
            return lock.acquire(timeout=0)
        except Timeout:
            log.info("Waiting for another process that computes the same %s (%s).", self.noun, lock.lock_file)
            return lock.acquire()
