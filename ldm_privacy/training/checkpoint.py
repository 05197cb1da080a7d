"""Checkpoint files: written whole or not at all, read without running anything that is in them."""

import os
import pickle
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer

from ldm_privacy.errors import UserError
from ldm_privacy.training.processes import is_main

RECORD = "ldm_privacy"
FORMAT = 1


def save_checkpoint(trainer: Trainer, path: Path, *, copies: Iterable[Path] = ()) -> None:
    """Write a checkpoint beside its place and rename it there, so that a stop at any byte leaves the old one whole.

    Args:
        trainer: What is stored.
        path: The place.
        copies: Further names for this very checkpoint. They are given first: a run that is killed in between goes on from
            the old one and gives them again, whereas the other way round it would believe that they are there.

    Raises:
        UserError: It can't be written (disk full); the file that was there is untouched.
    """
    temporary = path.with_name(path.name + ".tmp")
    if not is_main():
        trainer.save_checkpoint(temporary)  # takes part, and writes nothing
        return
    # Left by a kill, it may be another name of a copy's file, which writing into it would destroy.
    temporary.unlink(missing_ok=True)
    try:
        trainer.save_checkpoint(temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        for copy in copies:
            keep_copy(temporary, copy)
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        kept = f"The checkpoint from before is whole: {path}." if path.exists() else "No checkpoint was there before."
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise UserError(f"{path}: the checkpoint can't be written ({reason}). Free some space. {kept}") from error


def keep_copy(path: Path, copy: Path) -> None:
    """Let `copy` be another name of the file that `path` names now; a later `save_checkpoint(path)` leaves it alone."""
    temporary = copy.with_name(copy.name + ".tmp")
    temporary.unlink(missing_ok=True)
    try:
        os.link(path, temporary)
    except OSError:  # a file system without hard links
        shutil.copyfile(path, temporary)
    os.replace(temporary, copy)


def load_checkpoint(path: Path, *, stage: str = "denoiser") -> dict[str, Any]:
    """Read a checkpoint of this program with `weights_only=True`: nothing in it is run.

    Args:
        path: The file.
        stage: The training stage that it must come from.

    Raises:
        UserError: Missing, truncated, a pickle that would run code, of another program, or of another stage.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        beside = sorted(str(file) for file in path.parent.glob("*.ckpt")) if path.parent.is_dir() else []
        hint = f" There: {', '.join(beside)}." if beside else " Checkpoints lie in runs/<name>/checkpoints/."
        raise UserError(f"{path}: {what}; name a checkpoint file.{hint}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(
            f"{path}: refused: no plain checkpoint of tensors and settings: another kind of file, or one that would run code."
        ) from None
    except Exception as error:  # torch raises whatever its readers stumble over in bytes that are no checkpoint
        reason = (str(error) or "it ends too soon").splitlines()[0]
        raise UserError(f"{path}: can't be read, it is truncated or no checkpoint ({reason}). Use another one.") from None
    record = checkpoint.get(RECORD) if isinstance(checkpoint, dict) else None
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise UserError(f"{path}: not a checkpoint of this program (format {FORMAT}); it holds no config and no split.")
    if record["stage"] != stage:
        raise UserError(
            f"{path}: it is from the {record['stage']} stage, and only a checkpoint of the {stage} stage can be used here."
        )
    return checkpoint


def epochs_in(checkpoint: dict[str, Any]) -> int:
    """Epochs finished when a checkpoint was stored."""
    return checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
