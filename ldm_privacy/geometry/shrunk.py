"""Influence by empirical Bayes: few probes a sample, shrunk toward what a whole set of samples shows."""

import math
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from typing import Literal

import torch
from torch import Tensor

from ldm_privacy.device import passes, rows_within
from ldm_privacy.errors import UserError
from ldm_privacy.geometry.estimate import InfluenceEstimate, check_counts, concatenate
from ldm_privacy.geometry.probe import ProbeInfluence, half_stability
from ldm_privacy.registry import INFLUENCE_ESTIMATORS
from ldm_privacy.types import Decoder, Influence, Latent

ResidualVariance = Literal["channel", "dimension", "none"]
_COPIES = 16
"""In float64, of what is shrunk."""


@dataclass(frozen=True)
class ShrunkFit:
    """ln G_ni = level_n + dimension_mean_i + residual_ni, fitted to a set of samples.

    Attributes:
        influence: (samples, channels, height, width), exp of the posterior mode of ln G.
        standard_error: Like influence, from the posterior variance of ln G by the delta method.
        level: (samples,).
        dimension_mean: (channels, height, width), mean 0.
        residual_variance: (channels, height, width), >= 0, the noise taken out.
        noise_variance: trigamma(num_probes / 2), of the logarithm of one estimate.
    """

    influence: Influence
    standard_error: Tensor
    level: Tensor
    dimension_mean: Tensor
    residual_variance: Tensor
    noise_variance: float


def shrink_log_influence(influence: Influence, num_probes: int, residual_variance: ResidualVariance = "channel") -> ShrunkFit:
    """Shrink noisy influences of a set of samples toward level(sample) + mean(dimension).

    With Gaussian probes an estimate is G chi^2_K / K, so its logarithm has the known bias digamma(K/2) - ln(K/2) and noise
    variance trigamma(K/2). Level and mean are the two-way means of the corrected logarithms; the variance of what is left
    is estimated by moments, the noise variance taken out, and never below 0. Each ln G is then the mode of its posterior
    under that normal prior and the exact chi^2 likelihood. Probes that are shared by the dimensions of a sample correlate
    their noise a little; the noise variance taken out is that of one dimension, so the shrinkage errs toward more.

    Args:
        influence: (samples, channels, height, width) >= 0, estimates with `num_probes` Gaussian probes each (Rademacher
            probes have no such law).
        num_probes: K >= 1.
        residual_variance: One for each "channel" or each "dimension" (for thousands of samples), or "none": no residual,
            every sample gets the same ranking.

    Returns:
        The fit, on the influence's device, influence in its precision. A single sample is left as it is.
    """
    fit = Shrinkage.fitted(influence, num_probes, residual_variance)
    parts = [fit(influence[rows], rows) for rows in _chunks(influence)]
    shrunk, error = (torch.cat(each) for each in zip(*parts))
    shape = influence.shape[1:]
    return ShrunkFit(
        influence=shrunk,
        standard_error=error,
        level=fit.level,
        dimension_mean=fit.dimension_mean.reshape(shape),
        residual_variance=fit.residual_variance.reshape(shape),
        noise_variance=fit.noise_variance,
    )


@dataclass(frozen=True)
class Shrinkage:
    """The fit of `shrink_log_influence` without the influence of the samples themselves, which may be larger than memory.

    Attributes:
        level: (samples,).
        dimension_mean, residual_variance: (D,).
        noise_variance, num_probes: Of one estimate, and in one.
    """

    level: Tensor
    dimension_mean: Tensor
    residual_variance: Tensor
    noise_variance: float
    num_probes: int

    @classmethod
    def fitted(cls, influence: Influence, num_probes: int, residual_variance: ResidualVariance) -> "Shrinkage":
        """Two passes over the influence, as many samples at a time as fit the memory budget; arguments as there."""
        check_counts(1, num_probes=num_probes)
        _check_residual_variance(residual_variance)
        chunks = _chunks(influence)
        level = torch.cat([_corrected(influence[rows], num_probes).mean(1) for rows in chunks])
        sums = torch.stack([_corrected(influence[rows], num_probes).sum(0) for rows in chunks]).sum(0)
        dimension_mean = sums / len(influence) - level.mean()
        noise_variance = float(torch.polygamma(1, torch.tensor(num_probes / 2, dtype=torch.float64)))
        variance = torch.zeros_like(dimension_mean)
        if residual_variance != "none" and len(influence) > 1 and len(dimension_mean) > 1:
            for rows in chunks:
                prior = level[rows, None] + dimension_mean
                variance += (_corrected(influence[rows], num_probes) - prior).square().sum(0)
            # Two-way means take up 1/N and 1/D of the variance.
            variance = variance / ((len(influence) - 1) * (1 - 1 / len(dimension_mean))) - noise_variance
            if residual_variance == "channel":
                pooled = variance.reshape(influence.shape[1], -1).mean(1, keepdim=True)
                variance = pooled.expand(-1, math.prod(influence.shape[2:])).reshape(-1)
            variance = variance.clamp_min(0)
        return cls(level, dimension_mean, variance, noise_variance, num_probes)

    def __call__(self, influence: Influence, rows: slice) -> tuple[Influence, Tensor]:
        """The shrunk influence of those rows of the set, and its standard error, both like `influence`, which is theirs."""
        variance, noise, prior = self.residual_variance, self.noise_variance, self.level[rows, None] + self.dimension_mean
        shrunk = _posterior_mode(_positive(influence), prior, variance, self.num_probes / 2).exp()
        weight = variance / (variance + noise)
        of_mean = (variance + noise) / len(self.level)
        error = (weight * noise + (1 - weight).square() * of_mean).sqrt()
        return shrunk.reshape(influence.shape).to(influence.dtype), (shrunk * error).reshape(influence.shape).to(
            influence.dtype
        )


@INFLUENCE_ESTIMATORS.register("shrunk")
@dataclass
class ShrunkInfluence:
    """Probe influence, shrunk by empirical Bayes over the set of samples that it is given at once.

    Four probes here rank the dimensions about as well as sixteen unshrunk ones (docs/results/geometry.md). A sample's result
    depends on the set, not on the batches in which the decoder sees it. The probes are Gaussian: the noise variance that
    the shrinkage needs is known for those alone. Cost: as `ProbeInfluence`. Method: `shrink_log_influence`.

    Arguments and errors are those of `ProbeInfluence`; `residual_variance` is that of `shrink_log_influence` ("none": one mask
    for the whole set).
    """

    num_probes: int = 4
    _: KW_ONLY
    residual_variance: ResidualVariance = "channel"
    seed: int = 0
    keep_fraction: float = 0.6
    probe_batch_size: int | None = None

    def __post_init__(self) -> None:
        _check_residual_variance(self.residual_variance)
        self.per_sample = ProbeInfluence(
            self.num_probes,
            seed=self.seed,
            keep_fraction=self.keep_fraction,
            probe_batch_size=self.probe_batch_size,
        )

    def products_per_sample(self, num_dimensions: int, num_pixels: int) -> int:
        """One J^T v a probe."""
        return self.num_probes

    def __call__(
        self, decoder: Decoder, latent: Latent, sample_index: Tensor, probes: Tensor | None = None
    ) -> InfluenceEstimate:
        """The shrunk influence of each sample of the whole set, with its standard error.

        Arguments as in `ProbeInfluence`. Mask stability, from two probes on, is that of the masks which the halves of the
        probes give after the same shrinkage.
        """
        estimate = self.per_sample(decoder, latent, sample_index, probes)
        return concatenate(list(self.over_set(estimate, num_probes=None if probes is None else probes.shape[1])))

    def over_set(
        self, estimate: InfluenceEstimate, rows: slice = slice(None), *, num_probes: int | None = None
    ) -> Iterator[InfluenceEstimate]:
        """The second part alone: shrink the estimates of `per_sample`, of `num_probes` where they were others than its own."""
        num_probes, kind = num_probes or self.num_probes, self.residual_variance
        fit = Shrinkage.fitted(estimate.influence, num_probes, kind)
        parts = () if estimate.halves is None else estimate.halves.unbind(1)
        of_parts = [Shrinkage.fitted(part, num_probes // 2, kind) for part in parts]
        for some in _chunks(estimate.influence, rows):
            influence, error = fit(estimate.influence[some], some)
            if not of_parts:
                yield InfluenceEstimate(influence, error)
                continue
            halves = torch.stack([of_part(part[some], some)[0] for of_part, part in zip(of_parts, parts)], dim=1)
            yield InfluenceEstimate(influence, error, half_stability(halves, self.keep_fraction), halves)


def _chunks(influence: Influence, rows: slice = slice(None)) -> list[slice]:
    """Those rows in parts that fit the memory budget with what is computed of them."""
    first, last, _ = rows.indices(len(influence))
    most = rows_within(8 * _COPIES * influence.shape[1:].numel(), influence.device)
    return [slice(first + part.start, first + part.stop) for part in passes(last - first, most)]


def _positive(influence: Influence) -> Tensor:
    """(samples, D) float64, as logarithms are taken of them."""
    return influence.flatten(1).double().clamp_min(torch.finfo(torch.float32).tiny)


def _corrected(influence: Influence, num_probes: int) -> Tensor:
    """ln of the estimates less its bias, (samples, D) float64."""
    half = torch.tensor(num_probes / 2, dtype=torch.float64)
    return _positive(influence).log() - float(torch.digamma(half) - half.log())


def _posterior_mode(estimate: Tensor, prior: Tensor, variance: Tensor, half_probes: float) -> Tensor:
    """argmax over x = ln G of -K/2 (x + estimate exp(-x)) - (x - prior)^2 / (2 variance), by Newton's method (concave)."""
    x = prior.clone()
    precision = 1 / variance.clamp_min(1e-12)
    for _ in range(100):
        ratio = estimate * torch.exp(-x)
        step = (half_probes * (ratio - 1) - (x - prior) * precision) / (half_probes * ratio + precision)
        # Far below the mode the curvature is huge, far above it tiny: steps of at most 1 can't overshoot there.
        x = x + step.clamp(-1, 1)
        if step.abs().max() < 1e-9:
            break
    return x


def _check_residual_variance(kind: str) -> None:
    if kind not in ("channel", "dimension", "none"):
        raise UserError(f"residual_variance: '{kind}' is unknown. Use 'channel', 'dimension' or 'none'.")
