"""The one door: what lies at a path, opened as a target."""

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import torch

from ldm_privacy.errors import UserError
from ldm_privacy.plugins import blamed_on
from ldm_privacy.registry import TARGETS
from ldm_privacy.targets.place import check_is_there
from ldm_privacy.targets.target import Target

Dtype = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class Opening:
    """How a target is opened; a kind of target names those that it `takes`, and what it doesn't take can't be given.

    Attributes:
        device: Where its networks go.
        base: Folder of the model that an adapter belongs to; a string is one too, and "~" is the home folder.
        layout: Folder with the configs and the tokenizer that a single file lacks; likewise.
        dtype: Of the denoiser's weights.
        variant: Of a folder's files: "fp16" reads those that are called so.
        alpha: Of an adapter whose file doesn't say its own; it counts alpha / rank times.
        scale: Strength of an adapter.
        guidance: That a distilled network is told (Flux).
        num_tokens: Of a caption, where an encoder takes any number (T5).
    """

    device: torch.device = torch.device("cpu")
    base: Path | None = None
    layout: Path | None = None
    dtype: Dtype = "float32"
    variant: str | None = None
    alpha: float | None = None
    scale: float = 1.0
    guidance: float | None = None
    num_tokens: int | None = None

    def __post_init__(self) -> None:
        """Raises UserError for a dtype that isn't known, or that this device doesn't compute in, and for no strength."""
        for word in ("base", "layout"):
            if (place := getattr(self, word)) is not None:
                object.__setattr__(self, word, Path(place).expanduser())
        check_strength(self.alpha, self.scale)
        if self.dtype not in get_args(Dtype):
            raise UserError(f"dtype: {self.dtype!r} is none of {', '.join(get_args(Dtype))}.")
        if self.dtype == "float16" and self.device.type == "cpu":
            raise UserError("dtype: float16 is for GPUs; on a CPU use dtype=float32 (or bfloat16, which is slow there).")

    def given(self) -> list[str]:
        """Those that differ from their defaults."""
        return [each.name for each in fields(self) if getattr(self, each.name) != each.default]


class TargetKind(Protocol):
    """A kind of target, one file each: `@TARGETS.register("name")` above its class.

    `takes: tuple[str, ...]`, where it has one, names the fields of `Opening` beside the device that it looks at.
    """

    @staticmethod
    def recognises(path: Path) -> bool:
        """Whether what lies there looks like one; cheap, nothing is loaded."""

    @staticmethod
    def open(path: Path, opening: Opening) -> Target:
        """The target. Raises UserError where it can't be used."""


def open_target(path: Path | str, *, device: torch.device | str = "cpu", **how: Any) -> Target:
    """The target at a path: a checkpoint of this program, a folder of diffusers, an adapter, or whatever a kind recognises.

    Args:
        path: A file or a folder here; never taken for a name on the Hub.
        device: Where its networks go.
        how: See `Opening`.

    Raises:
        UserError: Nothing is there, no kind recognises it, it can't be used, or something was given that is for another kind.
    """
    place = Path(path).expanduser()
    check_is_there(place)
    opening = Opening(torch.device(device), **how)
    for word, other in (("base", opening.base), ("layout", opening.layout)):
        if other is not None:
            check_is_there(other, word)
    for name in TARGETS:
        kind: TargetKind = TARGETS.get(name)  # type: ignore[assignment]
        with blamed_on(kind):
            if kind.recognises(place):
                check_takes(name, kind, path, opening)
                target = kind.open(place, opening)
                if not isinstance(target, Target):
                    raise TypeError(f"open: it returns {type(target).__name__}, not a Target")
                return target
    hint = " A folder of diffusers has a model_index.json." if place.is_dir() else ""
    raise UserError(f"{path}: no kind of target that is known ({', '.join(TARGETS)}).{hint}")


def check_strength(alpha: float | None, scale: float) -> None:
    """Raise UserError for an alpha or a strength that no adapter has."""
    if alpha is not None and not (math.isfinite(alpha) and alpha > 0):
        raise UserError(f"alpha: {alpha:g}; give a positive number.")
    if not math.isfinite(scale) or not scale:
        raise UserError(f"scale: {scale:g}; an adapter of that strength changes nothing. Give another number than 0.")


def check_takes(name: str, kind: TargetKind, path: Path | str, opening: Opening) -> None:
    """Raise UserError for what was given and means nothing to that kind."""
    takes = ("device", *getattr(kind, "takes", ()))
    if foreign := [each for each in opening.given() if each not in takes]:
        takers = [other for other in TARGETS if foreign[0] in getattr(TARGETS.get(other), "takes", ())]
        raise UserError(f"{foreign[0]}: {path} is a {name}, which takes none; it is for: {', '.join(takers)}.")
