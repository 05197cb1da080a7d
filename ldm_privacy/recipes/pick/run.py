"""The checkpoints of one run of this program, in the order of its training."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ldm_privacy.config import stored_tree
from ldm_privacy.config.compose import RESUMABLE, differences
from ldm_privacy.errors import UserError
from ldm_privacy.geometry.store import fingerprint
from ldm_privacy.recipes.reference import plain_record, read_with
from ldm_privacy.recipes.terminal import tell
from ldm_privacy.runs.folder import RunFolder
from ldm_privacy.targets.record import Checkpoint

MAY_DIFFER = (*RESUMABLE, "name", "output_dir")
"""Keys of a config that may change while a run goes on, or when its folder is moved."""


@dataclass(frozen=True)
class Listed:
    """A checkpoint without its weights.

    Attributes:
        path: The file.
        time: Finished epochs, then optimizer steps.
        weights: Fingerprint of the denoiser.
        run: What of it is the same in all checkpoints of a run, by what it is called.
        config: Its config.
    """

    path: Path
    time: tuple[int, int]
    weights: str
    run: dict[str, Any] = field(repr=False)
    config: dict[str, Any] = field(repr=False)

    @property
    def is_last(self) -> bool:
        """Whether its name is that of a run's newest."""
        return self.path.name == RunFolder.around(self.path).last.name

    @property
    def is_kept_by_scores(self) -> bool:
        """Whether its name is that of one which audits of the training chose."""
        run = RunFolder.around(self.path)
        return self.path.name in (run.before_onset.name, run.under_limit.name)

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> "Listed":
        """Raises UserError where a part of it is damaged."""
        codec = checkpoint.codec()
        maps = {"shift": codec.channel_map.shift.tolist(), "matrix": codec.channel_map.matrix.tolist()}
        run = {
            "another split": checkpoint.split.hash,
            "other images": checkpoint.content_hash,
            "another autoencoder": fingerprint(codec.weights(), {**codec.settings(), **maps}, torch.empty(0)),
            "another condition": plain_record(checkpoint.denoiser.condition),
        }
        state = {name: value for name, value in checkpoint.parts["state_dict"].items() if isinstance(value, Tensor)}
        weights = fingerprint(state, {}, torch.empty(0))
        return cls(checkpoint.path, (checkpoint.epoch, checkpoint.step), weights, run, stored_tree(checkpoint.config))


def checkpoints_of_run(paths: Sequence[Path], overrides: Sequence[str] = ()) -> list[Listed]:
    """Those of the denoiser, ascending by time; each is read, and let go again.

    What is of stage 1, or holds the same weights as another one, is left out, and that is said.

    Raises:
        UserError: A file can't be read; none is of a denoiser; they are of several runs.
    """
    found = list[Listed]()
    for path in paths:
        try:
            found.append(Listed.of(read_with(path, overrides)))
        except UserError:
            if not _is_of_stage_1(path):
                raise
            tell(f"{path}: left out: it is of the autoencoder's stage, before any denoiser.")
    if not found:
        raise UserError(f"{paths[0].parent}: no checkpoint of a denoiser lies there, so there is nothing to pick from.")
    # Of equal ones the first stays: last.ckpt, whose evaluation may be there; what was kept by its scores gives way to others.
    found.sort(key=lambda each: (each.time, not each.is_last, each.is_kept_by_scores, each.path.name))
    _check_one_run(found)
    listed: dict[str, Listed] = {}
    for each in found:
        if (same := listed.setdefault(each.weights, each)) is not each:
            tell(f"{each.path}: left out: it holds the weights of {same.path.name}.")
    return list(listed.values())


def _is_of_stage_1(path: Path) -> bool:
    try:
        Checkpoint.read(path, stage="autoencoder")
    except UserError:
        return False
    return True


def _check_one_run(listed: Sequence[Listed]) -> None:
    """Raise UserError where two of them are not of one training."""
    first = listed[0]
    for other in listed[1:]:
        apart = [what for what, value in first.run.items() if other.run[what] != value]
        keys = [key for key in differences(other.config, first.config) if not key.startswith(MAY_DIFFER)]
        apart += [f"another {key}" for key in keys]
        if not apart and other.time == first.time and other.weights != first.weights:
            apart = ["other weights at the same step"]
        if apart:
            raise UserError(
                f"{other.path} is of another run than {first.path}: {apart[0]}. Name the checkpoints of one training alone."
            )
