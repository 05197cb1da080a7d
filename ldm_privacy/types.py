"""Shapes and records that every floor shares.

Axis names: batch, channels, height, width; image_channels, image_height, image_width; masks, timesteps.

* Image: float, [-1, 1], (batch, image_channels, image_height, image_width)
* Latent: float, the normalised posterior mean, (batch, channels, height, width); D = channels * height * width
* Timestep: int, (batch,), 0 = almost clean
* Influence: float >= 0, like Latent
* KeepMask: bool, like Latent
* Contribution: an attack's per-dimension term, like Latent
* Statistic: (masks, timesteps, batch), the raw sums of an attack
* MembershipScore: (batch,), higher = member
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

Image: TypeAlias = Tensor
Latent: TypeAlias = Tensor
Timestep: TypeAlias = Tensor
Influence: TypeAlias = Tensor
KeepMask: TypeAlias = Tensor
Contribution: TypeAlias = Tensor
Statistic: TypeAlias = Tensor
MembershipScore: TypeAlias = Tensor
Tone: TypeAlias = Literal["safe", "exposed", "unclear", "leak"]
"""Of a verdict."""
Decoder: TypeAlias = Callable[[Latent], Image]


@runtime_checkable
class NoisePredictor(Protocol):
    """A denoiser as the attacks see it: always returns epsilon, whatever the network was trained to output."""

    alphas_cumprod: Tensor
    """(num_train_timesteps,), abar_t; index 0 is almost clean."""

    def __call__(self, noisy_latent: Latent, timestep: Timestep, condition: Tensor | None) -> Latent:
        """epsilon(z_t, t, c), like `noisy_latent`. `timestep` is an integer tensor (batch,)."""
        ...


class AuditBatch(NamedTuple):
    """Samples of an audit, matched everywhere by `sample_index`, never by their place in the batch."""

    latent: Latent
    is_member: Tensor
    """(batch,) bool."""
    sample_index: Tensor
    """(batch,) int64: the row in the data source."""
    condition: Tensor | None = None

    def to(self, device: torch.device | str) -> "AuditBatch":
        """The same batch on another device."""
        condition = None if self.condition is None else self.condition.to(device)
        return AuditBatch(self.latent.to(device), self.is_member.to(device), self.sample_index.to(device), condition)

    def rows(self, rows: slice) -> "AuditBatch":
        """Some of the samples."""
        condition = None if self.condition is None else self.condition[rows]
        return AuditBatch(self.latent[rows], self.is_member[rows], self.sample_index[rows], condition)


@dataclass(frozen=True, order=True)
class AuditKey:
    """What one membership score belongs to."""

    attack: str
    mask: str

    def __str__(self) -> str:
        return f"{self.attack}/{self.mask}"


@dataclass(frozen=True)
class Estimate:
    """A number with the bounds of its interval."""

    value: float
    lower: float
    upper: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.lower:.3f}, {self.upper:.3f}]"
