"""What an influence estimator returns, and what it is."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ldm_privacy.errors import UserError
from ldm_privacy.types import Decoder, Influence, KeepMask, Latent


@dataclass(frozen=True)
class InfluenceEstimate:
    """Influence of a batch of samples, with its noise. Every tensor has the batch first.

    Attributes:
        influence: (batch, channels, height, width), >= 0: the estimate of diag(J^T J).
        standard_error: Like influence; 0 for an exact one.
        mask_stability: (batch,), the share of kept dimensions on which the masks of two halves of the probes agree; None
            where there are no two halves. It understates the stability of the mask of all probes.
        halves: (batch, 2, channels, height, width), the estimates of the two halves themselves; None as above.
    """

    influence: Influence
    standard_error: Tensor
    mask_stability: Tensor | None = None
    halves: Tensor | None = None

    def __post_init__(self) -> None:
        if self.standard_error.shape != self.influence.shape:
            raise ValueError(f"standard_error {self.standard_error.shape} is not like influence {self.influence.shape}")

    def tensors(self) -> dict[str, Tensor]:
        """All that there is, by name: for a store, or to gather it from several processes."""
        return {name: value for name, value in vars(self).items() if value is not None}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "InfluenceEstimate":
        """The estimate that `tensors` was called on."""
        return cls(**tensors)

    def rows(self, rows: slice | Tensor) -> "InfluenceEstimate":
        """Some of the samples."""
        return self.from_tensors({name: value[rows] for name, value in self.tensors().items()})

    def to(self, device: torch.device | str) -> "InfluenceEstimate":
        """The same on another device."""
        return self.from_tensors({name: value.to(device) for name, value in self.tensors().items()})


class InfluenceEstimator(Protocol):
    """An estimator of diag(J^T J), the influence of every latent dimension."""

    def __call__(self, decoder: Decoder, latent: Latent, sample_index: Tensor) -> InfluenceEstimate:
        """Influence of each sample; arguments, precision and errors as in `ldm_privacy.geometry`."""
        ...

    def products_per_sample(self, num_dimensions: int, num_pixels: int) -> int:
        """Products J v and J^T u that a sample costs beside its decode; D latent dimensions, numbers in the image."""
        ...


@runtime_checkable
class SetInfluenceEstimator(Protocol):
    """An estimator whose result for a sample depends on the whole set that it is given with."""

    per_sample: InfluenceEstimator
    """The part that needs the decoder, sample by sample."""

    def over_set(self, estimate: InfluenceEstimate, rows: slice = slice(None)) -> Iterator[InfluenceEstimate]:
        """The estimate of those rows of the set from all its samples' estimates, batch by batch: the set may be larger than
        memory."""
        ...


def concatenate(estimates: Sequence[InfluenceEstimate]) -> InfluenceEstimate:
    """The estimates of several batches as one."""
    parts = [estimate.tensors() for estimate in estimates]
    return InfluenceEstimate.from_tensors({name: torch.cat([part[name] for part in parts]) for name in parts[0]})


def mask_overlap(first: KeepMask, second: KeepMask) -> Tensor:
    """(batch,), share of the first mask's kept dimensions that the second keeps too; symmetric for masks of equal count."""
    return (first & second).flatten(1).sum(1) / first.flatten(1).sum(1)


def check_counts(at_least: int, **counts: int | None) -> None:
    """Raise UserError that names the first argument below `at_least`; None is left to a default."""
    for name, count in counts.items():
        if count is not None and count < at_least:
            raise UserError(f"{name}: {count} is too few; at least {at_least} is needed.")


def check_sample_index(latent: Latent, sample_index: Tensor) -> None:
    """Raise ValueError unless there is one sample index a sample."""
    if sample_index.shape != latent.shape[:1]:
        raise ValueError(f"sample_index {tuple(sample_index.shape)} does not fit latent {tuple(latent.shape)}")


def check_influence(influence: Influence, sample_index: Tensor) -> None:
    """Raise UserError that names the first sample with an influence that is not finite."""
    finite = influence.flatten(1).isfinite().all(1)
    if not finite.all():
        sample = int(sample_index.to(finite.device)[~finite][0])
        raise UserError(
            f"sample {sample}: its influence is not finite. Check that its latent and the autoencoder's weights are finite "
            "and don't overflow."
        )
