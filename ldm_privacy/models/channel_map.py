"""Channel maps: from an encoder's posterior means to the coordinates that the denoiser sees, latent = M (mean - shift).

Which latents the denoiser sees is part of the protocol (a mere change of channel scale moves every attack), so the map is
explicit, fitted to the members only, stored and printed. A fit is registered and called with the members' `means`; it may take
`codec`, `sample_index`, `seed` and `progress` too. One that costs network passes says how many in `passes`, as `Flattening`.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ldm_privacy.device import passes, rows_within
from ldm_privacy.errors import UserError
from ldm_privacy.registry import CHANNEL_MAPS
from ldm_privacy.types import Latent

log = logging.getLogger("ldm_privacy")


@dataclass(frozen=True, eq=False)
class ChannelMap:
    """latent = matrix (mean - shift), at every position alike.

    Attributes:
        name: Of the fit.
        shift: (channels,).
        matrix: (channels, channels), invertible.
    """

    name: str
    shift: Tensor
    matrix: Tensor

    @staticmethod
    def diagonal(name: str, shift: Tensor, scale: Tensor) -> "ChannelMap":
        """latent = (mean - shift) * scale, (channels,) each."""
        return ChannelMap(name, shift.float().cpu(), scale.float().cpu().diag())

    @staticmethod
    def identity(channels: int) -> "ChannelMap":
        """Posterior means as they are."""
        return ChannelMap.diagonal("none", torch.zeros(channels), torch.ones(channels))

    def __call__(self, mean: Tensor) -> Latent:
        """(batch, channels, height, width), like `mean`."""
        shift, matrix = self.shift.to(mean), self.matrix.to(mean)
        if self._is_diagonal:
            return (mean - shift[:, None, None]) * matrix.diagonal()[:, None, None]
        return torch.einsum("ij,bjhw->bihw", matrix, mean - shift[:, None, None])

    def inverse(self, latent: Latent) -> Tensor:
        """The posterior mean of a latent; differentiable."""
        shift, matrix = self.shift.to(latent), self.matrix.to(latent)
        if self._is_diagonal:
            return latent / matrix.diagonal()[:, None, None] + shift[:, None, None]
        return torch.einsum("ij,bjhw->bihw", self._inverse.to(latent), latent) + shift[:, None, None]

    def __str__(self) -> str:
        scale = self.matrix.diagonal()
        if not self._is_diagonal:
            return (
                f"{self.name}, a {len(scale)} x {len(scale)} matrix of determinant {float(torch.det(self.matrix.double())):.4g}"
            )
        if not self.shift.any() and (scale == 1).all():
            return "none (posterior means as they are)"
        if not self.shift.any() and (scale == scale[0]).all():
            return f"one scaling factor, {float(scale[0]):.4g}"
        if (self.shift == self.shift[0]).all() and (scale == scale[0]).all():
            return f"one shift, {float(self.shift[0]):.4g}, and one scaling factor, {float(scale[0]):.4g}"
        shifts, scales = (", ".join(f"{value:.3g}" for value in each.tolist()) for each in (self.shift, scale))
        return f"per channel, shift [{shifts}], scale [{scales}]"

    def record(self) -> dict[str, Any]:
        """Plain tensors and strings, for a checkpoint."""
        return {"name": self.name, "shift": self.shift, "matrix": self.matrix}

    @staticmethod
    def from_record(record: Mapping[str, Any], channels: int) -> "ChannelMap":
        """The inverse of `record`. Raises UserError where it is no map of so many channels."""
        parts: list[Any] = [record.get(key) for key in ("name", "shift", "matrix")]
        name, shift, matrix = parts
        fits = all(
            isinstance(value, Tensor) and value.is_floating_point() and value.shape == shape and bool(value.isfinite().all())
            for value, shape in ((shift, (channels,)), (matrix, (channels, channels)))
        )
        if not isinstance(name, str) or not fits or float(torch.det(matrix.double())) == 0:
            raise UserError("its channel map is missing or holds something else")
        return ChannelMap(name, shift, matrix)

    # Of the map as it is on the CPU: looking at it on a GPU would wait for that.
    @cached_property
    def _is_diagonal(self) -> bool:
        return bool((self.matrix == self.matrix.diagonal().diag()).all())

    @cached_property
    def _inverse(self) -> Tensor:
        return torch.linalg.inv(self.matrix.double())


FLOOR = 1e-6
"""Share of a matrix's largest eigenvalue below which a direction counts as dead: a thousandth in standard deviation."""


def power_of(matrix: Tensor, exponent: float, *, what: str) -> Tensor:
    """A symmetric positive (channels, channels) matrix to a power, float64, symmetric itself.

    Eigenvalues below `FLOOR` times the largest count as that, so that a dead direction is neither blown up without end nor
    lost: the power has an inverse. A warning says it, where `what` is what the matrix is of.
    """
    value, axes = torch.linalg.eigh(matrix.double())
    least = FLOOR * value.max()
    if num_dead := int((value < least).sum()):
        log.warning(
            "%s: %d of %d directions have next to none, and are scaled as if they had a little.", what, num_dead, len(value)
        )
    # Of constant latents all are 0.
    return (axes * value.clamp_min(least).clamp_min(1e-16) ** exponent) @ axes.T


def channel_moments(means: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (channels,) and covariance (channels, channels) of the channels over samples and positions, float64.

    The covariance is divided by one less than the numbers of a channel. Two passes over `means`, (samples, channels, height,
    width), as many samples at a time as fit the memory budget: they may be larger than memory.
    """
    count = means.numel() // means.shape[1]
    rows = passes(len(means), rows_within(32 * means.shape[1:].numel(), means.device))

    def values(rows: slice) -> Tensor:
        return means[rows].double().transpose(0, 1).flatten(1)

    mean = torch.stack([values(each).sum(1) for each in rows]).sum(0) / count
    products = torch.zeros(len(mean), len(mean), dtype=torch.float64, device=means.device)
    for each in rows:
        centred = values(each) - mean[:, None]
        products += centred @ centred.T
    return mean, products / max(count - 1, 1)


@CHANNEL_MAPS.register("none")
def none(means: Tensor) -> ChannelMap:
    """Posterior means as they are. `means`: (samples, channels, height, width), the members'."""
    return ChannelMap.identity(means.shape[1])


@CHANNEL_MAPS.register("scaling_factor")
def scaling_factor(means: Tensor) -> ChannelMap:
    """One number, 1 / standard deviation of all latent numbers, no shift (Rombach et al. 2022, 2112.10752, appendix G)."""
    mean, covariance = channel_moments(means)
    channels, of_channel = len(mean), means.numel() // len(mean)
    squares = (of_channel - 1) * covariance.trace() + of_channel * (mean - mean.mean()).square().sum()
    scale = (1 / (squares / (means.numel() - 1)).sqrt().clamp_min(1e-8)).expand(channels)
    return ChannelMap.diagonal("scaling_factor", torch.zeros(channels), scale)


@CHANNEL_MAPS.register("per_channel")
def per_channel(means: Tensor) -> ChannelMap:
    """Mean 0 and standard deviation 1 in each channel."""
    mean, covariance = channel_moments(means)
    return ChannelMap.diagonal("per_channel", mean, 1 / covariance.diagonal().sqrt().clamp_min(1e-8))
