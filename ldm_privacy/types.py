"""Shapes and records that every floor shares.

Axis names: batch, channels, height, width; image_channels, image_height, image_width; masks, timesteps.

* Image: float, [-1, 1], (batch, image_channels, image_height, image_width)
* Latent: float, the coordinates that the denoiser sees, (batch, channels, height, width); D = channels * height * width
* Timestep: int, (batch,), 0 = almost clean
* Condition: name -> tensor with the batch first, passed to the network as keyword arguments; {} = unconditional
* Influence: float >= 0, like Latent
* KeepMask: bool, like Latent
* Contribution: an attack's per-dimension term, like Latent
* Statistic: (masks, timesteps, batch), the raw sums of an attack
* MembershipScore: (batch,), higher = member
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from ldm_privacy.errors import UserError

Image: TypeAlias = Tensor
Latent: TypeAlias = Tensor
Timestep: TypeAlias = Tensor
Condition: TypeAlias = Mapping[str, Tensor]
Influence: TypeAlias = Tensor
KeepMask: TypeAlias = Tensor
Contribution: TypeAlias = Tensor
Statistic: TypeAlias = Tensor
MembershipScore: TypeAlias = Tensor
Tone: TypeAlias = Literal["safe", "exposed", "unclear", "leak"]
"""Of a verdict."""
Whose: TypeAlias = Literal["", "outsider", "insider"]
"""A reference is: nobody's, there being none; anybody's, who may have the base of a model; the trainer's, who has the run's
checkpoints."""
Decoder: TypeAlias = Callable[[Latent], Image]
Images: TypeAlias = Callable[[Tensor], Image]
"""Sample indices -> images, on the CPU."""


class Done(Protocol):
    """Called with the number done so far, and the number in all where that wasn't known before."""

    def __call__(self, done: int, total: int | None = None) -> None: ...


Progress: TypeAlias = Callable[[str, int], AbstractContextManager[Done]]
"""progress(description, total) shows a bar while its context lasts; total 0 = not known yet."""


def no_progress(description: str, total: int) -> AbstractContextManager[Done]:
    """A `Progress` that shows nothing."""
    return nullcontext(lambda done, total=None: None)


@runtime_checkable
class NoisePredictor(Protocol):
    """A denoiser as the attacks see it: always returns epsilon, whatever the network was trained to output."""

    alphas_cumprod: Tensor
    """(num_train_timesteps,), abar_t; index 0 is almost clean."""

    def __call__(self, noisy_latent: Latent, timestep: Timestep, condition: Condition) -> Latent:
        """epsilon(z_t, t, c), like `noisy_latent`. `timestep` is an integer tensor (batch,)."""
        ...


def check_shape(what: str, value: object, shape: Sequence[int], dtype: torch.dtype | None = None) -> Tensor:
    """A tensor that a component returned. Raises ValueError where it is none, or has another shape or dtype."""
    if isinstance(value, Tensor) and value.shape == tuple(shape) and dtype in (None, value.dtype):
        return value
    found = f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
    raise ValueError(f"{what}: it returns {found}, not a {f'{dtype} ' if dtype else ''}tensor of shape {tuple(shape)}")


def rows_of(condition: Condition, rows: slice | Tensor) -> dict[str, Tensor]:
    """The condition of some of the samples."""
    return {name: value[rows] for name, value in condition.items()}


def condition_under(view: str, own: Condition, views: Mapping[str, Condition]) -> Condition:
    """The condition of that view of some samples, "own" among them. Raises UserError where they have none such."""
    if view != "own" and view not in views:
        raise UserError(f"there is no '{view}' condition of these samples: it is for a denoiser that has conditions.")
    return own if view == "own" else views[view]


@dataclass(frozen=True, order=True)
class AuditKey:
    """What one membership score belongs to."""

    attack: str
    mask: str

    def __str__(self) -> str:
        return f"{self.attack}/{self.mask}"

    @classmethod
    def of(cls, name: str) -> "AuditKey":
        """The inverse of `str`. Raises ValueError where it isn't two labels."""
        attack, mask = name.split("/")
        return cls(attack, mask)


@dataclass(frozen=True)
class Estimate:
    """A number with the bounds of its interval."""

    value: float
    lower: float
    upper: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.lower:.3f}, {self.upper:.3f}]"

    def series(self, name: str) -> dict[str, float]:
        """The three numbers as curves: `name`, `name_lower`, `name_upper`."""
        return {name: self.value, f"{name}_lower": self.lower, f"{name}_upper": self.upper}

    def leaves_out(self, value: float) -> bool:
        """Whether the interval lies on one side of `value`."""
        return not self.lower <= value <= self.upper


@dataclass(frozen=True)
class Intervals:
    """How intervals are made.

    Attributes:
        confidence: Nominal coverage of each.
        num_bootstrap: Resamples of those that resample.
        seed: Of the resampling.
    """

    confidence: float = 0.95
    num_bootstrap: int = 1000
    seed: int = 0

    def options(self, group: Tensor | None = None) -> dict[str, Any]:
        """As keyword arguments of a metric; with `group`, (samples,) labels, whole groups are resampled."""
        return {"confidence": self.confidence, "num_bootstrap": self.num_bootstrap, "seed": self.seed, "group": group}
