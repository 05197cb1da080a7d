"""Pearson's correlation of two quantities of the same samples."""

import numpy as np
from torch import Tensor

from ldm_privacy.errors import UserError
from ldm_privacy.metrics.checks import check_finite, check_same_samples, check_share
from ldm_privacy.metrics.resampling import SideResampler, bootstrap_generator, percentiles
from ldm_privacy.types import Estimate


def pearson(
    first: Tensor,
    second: Tensor,
    *,
    confidence: float = 0.95,
    group: Tensor | None = None,
    num_bootstrap: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Pearson's r with the percentiles of a bootstrap over the samples (over whole groups, where given).

    Args:
        first, second: (samples,), the same four samples or more in the same order, not constant.
        confidence, group, num_bootstrap, seed: As in `ldm_privacy.metrics`; so are errors.

    Returns:
        r, and the bounds over the resamples that have one; [-1, 1] where none has.
    """
    check_share("confidence", confidence)
    check_same_samples(first, second)
    if (num_samples := len(first)) < 4:
        raise UserError(f"{num_samples} samples: a correlation with an interval needs at least 4.")
    both = []
    for name, value in (("first", first), ("second", second)):
        check_finite(value, f"the {name} number of sample", "take the sample out.")
        both.append(value.detach().cpu().double().numpy())
        if np.ptp(both[-1]) == 0:
            raise UserError(f"the {name} numbers are all {both[-1][0]}: constant numbers correlate with nothing.")
    resampler, generator = (
        SideResampler(num_samples, None if group is None else np.asarray(group)),
        bootstrap_generator("pearson", seed),
    )
    counts = np.stack([resampler.draw(generator) for _ in range(num_bootstrap)])
    correlation = float(_weighted(both[0], both[1], np.ones((1, num_samples)))[0])
    draws = _weighted(both[0], both[1], counts)
    draws = draws[np.isfinite(draws)]
    return Estimate(correlation, *(percentiles(draws, confidence) if len(draws) else (-1.0, 1.0)))


def _weighted(first: np.ndarray, second: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """r of each resample, (resamples,), from how often it has each sample, (resamples, samples); NaN where one is constant."""
    first, second = first - first.mean(), second - second.mean()
    share = counts / counts.sum(1, keepdims=True)
    mean_a, mean_b = share @ first, share @ second
    spread_a, spread_b = share @ first**2 - mean_a**2, share @ second**2 - mean_b**2
    # What is left of a constant by rounding.
    is_constant = (spread_a <= 1e-12 * (first**2).max()) | (spread_b <= 1e-12 * (second**2).max())
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = (share @ (first * second) - mean_a * mean_b) / np.sqrt(spread_a * spread_b)
    return np.where(is_constant, np.nan, np.clip(correlation, -1.0, 1.0))
