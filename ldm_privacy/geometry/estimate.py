"""What an influence estimator returns, and what it is."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ldm_privacy.errors import UserError
from ldm_privacy.types import Decoder, Influence, KeepMask, Latent


@dataclass(frozen=True)
class InfluenceEstimate:
    """Influence of a batch of samples, with its noise.

    Attributes:
        influence: (batch, channels, height, width), >= 0: the estimate of diag(J^T J).
        standard_error: Like influence; 0 for an exact one.
        mask_stability: (batch,), the share of kept dimensions on which the masks of two halves of the probes agree; None
            where there are no two halves. It understates the stability of the mask of all probes.
        halves: (2, batch, channels, height, width), the estimates of the two halves themselves; None as above.
        from_store: Found in an `InfluenceStore`, not computed.
    """

    influence: Influence
    standard_error: Tensor
    mask_stability: Tensor | None = None
    halves: Tensor | None = None
    from_store: bool = False

    def __post_init__(self) -> None:
        if self.standard_error.shape != self.influence.shape:
            raise ValueError(f"standard_error {self.standard_error.shape} is not like influence {self.influence.shape}")

    def rows(self, rows: slice) -> "InfluenceEstimate":
        """Some of the samples."""
        return InfluenceEstimate(
            self.influence[rows],
            self.standard_error[rows],
            None if self.mask_stability is None else self.mask_stability[rows],
            None if self.halves is None else self.halves[:, rows],
            self.from_store,
        )

    def to(self, device: torch.device | str) -> "InfluenceEstimate":
        """The same on another device."""
        return InfluenceEstimate(
            self.influence.to(device),
            self.standard_error.to(device),
            None if self.mask_stability is None else self.mask_stability.to(device),
            None if self.halves is None else self.halves.to(device),
            self.from_store,
        )


class InfluenceEstimator(Protocol):
    """An estimator of diag(J^T J), the influence of every latent dimension."""

    def __call__(
        self, decoder: Decoder, latent: Latent, sample_index: Tensor, probes: Tensor | None = None
    ) -> InfluenceEstimate:
        """Influence of each sample. `sample_index` (batch,) seeds what is random; `probes` replace it."""
        ...


@runtime_checkable
class SetInfluenceEstimator(Protocol):
    """An estimator whose result for a sample depends on the whole set that it is given with."""

    per_sample: InfluenceEstimator
    """The part that needs the decoder, sample by sample."""

    def over_set(self, estimate: InfluenceEstimate) -> InfluenceEstimate:
        """The estimate of the set from its samples' estimates."""
        ...


def concatenate(estimates: list[InfluenceEstimate]) -> InfluenceEstimate:
    """The estimates of several batches as one."""
    stability = [estimate.mask_stability for estimate in estimates if estimate.mask_stability is not None]
    halves = [estimate.halves for estimate in estimates if estimate.halves is not None]
    return InfluenceEstimate(
        torch.cat([estimate.influence for estimate in estimates]),
        torch.cat([estimate.standard_error for estimate in estimates]),
        torch.cat(stability) if stability else None,
        torch.cat(halves, dim=1) if halves else None,
    )


def mask_overlap(first: KeepMask, second: KeepMask) -> Tensor:
    """(batch,), share of the first mask's kept dimensions that the second keeps too; symmetric for masks of equal count."""
    return (first & second).flatten(1).sum(1) / first.flatten(1).sum(1)


def check_sample_index(latent: Latent, sample_index: Tensor) -> None:
    """Raise ValueError unless there is one sample index a sample."""
    if sample_index.shape != latent.shape[:1]:
        raise ValueError(f"sample_index {tuple(sample_index.shape)} does not fit latent {tuple(latent.shape)}")


def check_finite(influence: Influence, sample_index: Tensor) -> None:
    """Raise UserError that names the first sample with an influence that is not finite."""
    finite = influence.flatten(1).isfinite().all(1)
    if not finite.all():
        sample = int(sample_index.to(finite.device)[~finite][0])
        raise UserError(
            f"sample {sample}: its influence is not finite. Check that its latent and the autoencoder's weights are finite "
            "and don't overflow."
        )
