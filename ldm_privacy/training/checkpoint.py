"""Checkpoint files: written whole or not at all, read without running anything that is in them."""

import os
import pickle
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

from ldm_privacy.errors import UserError
from ldm_privacy.models.autoencoder import misfit
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
        UserError: Missing, truncated, a pickle that would run code, of another program, of another stage, or without
            something that a checkpoint of that stage holds.
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
    if not isinstance(record.get("stage"), str):
        raise _damaged(path, "its stage")
    if record["stage"] != stage:
        raise UserError(
            f"{path}: it is from the {record['stage']} stage, and only a checkpoint of the {stage} stage can be used here."
        )
    _check_contents(checkpoint, path)
    return checkpoint


def load_weights(module: nn.Module, checkpoint: Mapping[str, Any]) -> None:
    """Put the weights of a checkpoint into the network that its config describes.

    Raises:
        UserError: They are of other names or shapes.
    """
    state = checkpoint["state_dict"]
    if wrong := misfit(module.state_dict(), state):
        raise UserError(f"ckpt: the weights don't fit the network that the stored config describes ({wrong}). Use another one.")
    module.load_state_dict(state)


def _check_contents(checkpoint: dict[str, Any], path: Path) -> None:
    """Refuse a checkpoint of this program that lacks something, or holds something else in its place."""
    record = checkpoint[RECORD]
    if not isinstance(record.get("config"), str):
        raise _damaged(path, "its config")
    if not isinstance(record.get("content_hash"), str | None):
        raise _damaged(path, "the hash of its images")
    split = record.get("split")
    if not isinstance(split, dict) or not all(
        isinstance(split.get(name), kind)
        for name, kind in (("member_index", Tensor), ("heldout_index", Tensor), ("public_index", Tensor), ("num_rows", int))
    ):
        raise _damaged(path, "its split")
    if not _are_tensors(checkpoint.get("state_dict")):
        raise _damaged(path, "its weights (state_dict)")
    try:
        epoch = epochs_in(checkpoint)
    except (KeyError, TypeError):
        epoch = None
    if type(epoch) is not int or epoch < 0:
        raise _damaged(path, "the number of its epochs (loops)")
    if record["stage"] != "denoiser":
        return
    if not isinstance(record.get("autoencoder_config"), dict):
        raise _damaged(path, "the settings of its autoencoder (autoencoder_config)")
    if not _are_tensors(record.get("autoencoder")):
        raise _damaged(path, "the weights of its autoencoder (autoencoder)")
    normalisation = record.get("normalisation")
    if not isinstance(normalisation, dict) or not _is_normalisation(
        normalisation, record["autoencoder_config"].get("latent_channels")
    ):
        raise _damaged(path, "its normalisation of the latents")


def _are_tensors(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(name, str) and isinstance(each, Tensor) for name, each in value.items())


def _is_normalisation(state: dict[str, Any], channels: object) -> bool:
    return isinstance(state.get("mode"), str) and all(
        isinstance(each, Tensor)
        and each.is_floating_point()
        and tuple(each.shape) == (channels, 1, 1)
        and bool(each.isfinite().all())
        for each in (state.get("shift"), state.get("scale"))
    )


def _damaged(path: Path, what: str) -> UserError:
    return UserError(f"{path}: {what} is missing or holds something else; the checkpoint is damaged. Use another one.")


def epochs_in(checkpoint: dict[str, Any]) -> int:
    """Epochs finished when a checkpoint was stored."""
    return checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
