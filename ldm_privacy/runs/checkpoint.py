"""Writing checkpoints: whole or not at all."""

import errno
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from lightning.pytorch import Trainer

from ldm_privacy.errors import UserError, reason_of
from ldm_privacy.processes import is_main


def save_checkpoint(trainer: Trainer, path: Path, *, copies: Iterable[Path] = ()) -> None:
    """Write a checkpoint beside its place and rename it there, so that a stop at any byte leaves the old one whole.

    Args:
        trainer: What is stored.
        path: The place; UserError where it can't be written (disk full), and the file that was there is untouched.
        copies: Further names for this very checkpoint. They are given first: a run that is killed in between goes on from
            the old one and gives them again, whereas the other way round it would believe that they are there.
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
        reason = getattr(error, "strerror", None) or reason_of(error)
        is_full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        advice = "Free some space. " if is_full else ""
        raise UserError(f"{path}: the checkpoint can't be written ({reason}). {advice}{kept}") from error


def keep_copy(path: Path, copy: Path) -> None:
    """Let `copy` be another name of the file that `path` names now; a later `save_checkpoint(path)` leaves it alone."""
    temporary = copy.with_name(copy.name + ".tmp")
    temporary.unlink(missing_ok=True)
    try:
        os.link(path, temporary)
    except OSError:  # a file system without hard links
        shutil.copyfile(path, temporary)
    os.replace(temporary, copy)
