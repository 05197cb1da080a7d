"""Influence by empirical Bayes: few probes a sample, shrunk toward what a whole set of samples shows."""

import math
from dataclasses import KW_ONLY, dataclass
from typing import Literal

import torch
from torch import Tensor

from ldm_privacy.errors import UserError
from ldm_privacy.geometry.estimate import InfluenceEstimate, check_counts
from ldm_privacy.geometry.probe import ProbeInfluence, half_stability
from ldm_privacy.registry import INFLUENCE_ESTIMATORS
from ldm_privacy.types import Decoder, Influence, Latent

ResidualVariance = Literal["channel", "dimension", "none"]


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
    check_counts(1, num_probes=num_probes)
    shape = influence.shape
    half = torch.tensor(num_probes / 2, dtype=torch.float64)
    noise_variance = float(torch.polygamma(1, half))
    estimate = influence.flatten(1).double().clamp_min(torch.finfo(torch.float32).tiny)
    corrected = estimate.log() - float(torch.digamma(half) - half.log())

    level = corrected.mean(1, keepdim=True)
    dimension_mean = corrected.mean(0) - corrected.mean()
    prior = level + dimension_mean
    variance = _residual_variance(corrected - prior, noise_variance, shape, residual_variance)

    log_influence = _posterior_mode(estimate, prior, variance, num_probes / 2)
    weight = variance / (variance + noise_variance)
    of_mean = (variance + noise_variance) / len(influence)
    error = (weight * noise_variance + (1 - weight).square() * of_mean).sqrt()
    shrunk = log_influence.exp()
    return ShrunkFit(
        influence=shrunk.reshape(shape).to(influence.dtype),
        standard_error=(shrunk * error).reshape(shape).to(influence.dtype),
        level=level[:, 0],
        dimension_mean=dimension_mean.reshape(shape[1:]),
        residual_variance=variance.reshape(shape[1:]),
        noise_variance=noise_variance,
    )


def dataset_influence(influence: Influence, num_probes: int) -> Influence:
    """One influence for the whole set, (1, channels, height, width): exp of the dimension means of `shrink_log_influence`.

    Up to one factor the geometric mean over the samples; `KeepTopInfluence` makes the data-set-wide mask of it.
    """
    mean = shrink_log_influence(influence, num_probes, "none").dimension_mean
    return mean.exp()[None].to(influence.dtype)


@INFLUENCE_ESTIMATORS.register("shrunk")
@dataclass
class ShrunkInfluence:
    """Probe influence, shrunk by empirical Bayes over the set of samples that it is given at once.

    Four probes here rank the dimensions about as well as sixteen unshrunk ones (docs/geometry.md). A sample's result
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
        return self.over_set(estimate, num_probes=None if probes is None else probes.shape[1])

    def over_set(self, estimate: InfluenceEstimate, *, num_probes: int | None = None) -> InfluenceEstimate:
        """The second part alone: shrink the estimates of `per_sample`, of `num_probes` where they were others than its own."""
        num_probes = num_probes or self.num_probes
        fit = shrink_log_influence(estimate.influence, num_probes, self.residual_variance)
        if estimate.halves is None:
            return InfluenceEstimate(fit.influence, fit.standard_error)
        parts = [shrink_log_influence(half, num_probes // 2, self.residual_variance) for half in estimate.halves.unbind(1)]
        halves = torch.stack([part.influence for part in parts], dim=1)
        return InfluenceEstimate(fit.influence, fit.standard_error, half_stability(halves, self.keep_fraction), halves)


def _residual_variance(residual: Tensor, noise_variance: float, shape: torch.Size, kind: ResidualVariance) -> Tensor:
    """(D,), variance of the residuals (samples, D) beyond the noise, at least 0."""
    _check_residual_variance(kind)
    num_samples, num_dimensions = residual.shape
    if kind == "none" or num_samples < 2 or num_dimensions < 2:
        return torch.zeros_like(residual[0])
    # Two-way means take up 1/N and 1/D of the variance.
    degrees = (num_samples - 1) * (1 - 1 / num_dimensions)
    variance = residual.square().sum(0) / degrees - noise_variance
    if kind == "channel":
        pooled = variance.reshape(shape[1], -1).mean(1, keepdim=True)
        variance = pooled.expand(-1, math.prod(shape[2:])).reshape(-1)
    return variance.clamp_min(0)


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
