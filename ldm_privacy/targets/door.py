"""The one door: what lies at a path, opened as a target."""

from pathlib import Path
from typing import Protocol

import torch

from ldm_privacy.errors import UserError
from ldm_privacy.plugins import blamed_on
from ldm_privacy.registry import TARGETS
from ldm_privacy.targets.target import Target


class TargetKind(Protocol):
    """A kind of target, one file each: `@TARGETS.register("name")` above its class."""

    @staticmethod
    def recognises(path: Path) -> bool:
        """Whether what lies there looks like one; cheap, nothing is loaded."""

    @staticmethod
    def open(path: Path, device: torch.device) -> Target:
        """The target. Raises UserError where it can't be used."""


def open_target(path: Path | str, *, device: torch.device | str = "cpu") -> Target:
    """The target at a path: a checkpoint of this program, or whatever a registered kind recognises.

    Raises UserError where nothing is there, no kind recognises it, or it can't be used.
    """
    place = Path(path)
    if not place.exists():
        raise UserError(f"{path}: does not exist.")
    for name in TARGETS:
        kind: TargetKind = TARGETS.get(name)  # type: ignore[assignment]
        with blamed_on(kind):
            if kind.recognises(place):
                target = kind.open(place, torch.device(device))
                if not isinstance(target, Target):
                    raise TypeError(f"open: it returns {type(target).__name__}, not a Target")
                return target
    raise UserError(f"{path}: no kind of target that is known ({', '.join(TARGETS)}).")
