"""Resampling of members and held-out samples, single or in whole groups, and the exact binomial interval."""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy import stats
from torch import Tensor

from ldm_privacy.errors import UserError
from ldm_privacy.randomness import derive_seed
from ldm_privacy.types import Estimate


class SideResampler:
    """Draws, with replacement, as many units of one side as it has; a unit is a sample, or a group of samples.

    Args:
        num_samples: How many samples the side has.
        group: (samples,) labels of the side's groups; every sample is its own unit where None.
    """

    def __init__(self, num_samples: int, group: np.ndarray | None = None):
        self.unit = None if group is None else np.unique(group, return_inverse=True)[1]
        self.num_units = num_samples if self.unit is None else int(self.unit.max()) + 1

    def draw(self, generator: np.random.Generator) -> np.ndarray:
        """How often each sample is in one resample: (samples,) int64."""
        drawn = generator.integers(self.num_units, size=self.num_units)
        count = np.bincount(drawn, minlength=self.num_units)
        return count if self.unit is None else count[self.unit]

    def mean_variance(self, term: np.ndarray) -> float:
        """Variance of the mean of the samples' terms, whose units are independent.

        `k / (k - 1) sum_g (sum_{i in g} (d_i - mean))^2 / n^2` for k units and n samples.
        """
        deviation = term - term.mean()
        if self.unit is not None:
            deviation = np.bincount(self.unit, weights=deviation)
        return float(self.num_units / (self.num_units - 1) * (deviation @ deviation) / term.size**2)

    def mean_deviations(self, term: np.ndarray) -> np.ndarray:
        """Of (rows, samples) the (rows, units) whose products are the covariances of the rows' means, as `mean_variance`."""
        deviation = term - term.mean(axis=1, keepdims=True)
        if self.unit is not None:
            deviation = np.stack([np.bincount(self.unit, weights=row) for row in deviation])
        return deviation * ((self.num_units / (self.num_units - 1)) ** 0.5 / term.shape[1])


class Sides(NamedTuple):
    """Members and held-out samples, each in the order of the samples."""

    member: SideResampler
    heldout: SideResampler

    @property
    def num_pairs(self) -> int:
        """Disjoint pairs of a member and a held-out unit: as many as the smaller side has."""
        return min(self.member.num_units, self.heldout.num_units)

    def resamples(self, purpose: str, num_bootstrap: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """How often each member and each held-out sample is in a resample, for each of them."""
        if self.member.unit is None and self.heldout.unit is None:
            yield from _resamples(self.member.num_units, self.heldout.num_units, purpose, num_bootstrap, seed)
            return
        generator = bootstrap_generator(purpose, seed)
        for _ in range(num_bootstrap):
            yield self.member.draw(generator), self.heldout.draw(generator)


@lru_cache(maxsize=2)
def _resamples(
    num_members: int, num_heldout: int, purpose: str, num_bootstrap: int, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The resamples of single samples: every row of an audit has the same. A sample is drawn more than 255 times in none."""
    sides, generator = (SideResampler(num_members), SideResampler(num_heldout)), bootstrap_generator(purpose, seed)
    return [tuple(side.draw(generator).astype(np.uint8) for side in sides) for _ in range(num_bootstrap)]  # type: ignore[misc]


def sides_of(is_member: Tensor, group: Tensor | None) -> Sides:
    """The two sides, of samples or of groups.

    Raises:
        UserError: as many groups as samples are not given, or a group has samples on both sides.
    """
    member = is_member.cpu().numpy()
    if group is None:
        return Sides(SideResampler(int(member.sum())), SideResampler(int((~member).sum())))
    label = np.asarray(group)
    if label.shape != member.shape:
        raise UserError(f"{label.size} group labels for {member.size} samples: pass one label per sample.")
    shared = np.intersect1d(label[member], label[~member])
    if shared.size:
        raise UserError(f"group {shared[0]} has members and held-out samples: split the data by group.")
    return Sides(SideResampler(member.sum(), label[member]), SideResampler((~member).sum(), label[~member]))


def bootstrap_generator(purpose: str, seed: int) -> np.random.Generator:
    """The generator of one metric's bootstrap: a pure function of its purpose and the run's seed."""
    return np.random.default_rng(derive_seed(f"bootstrap {purpose}", seed))


def percentiles(draws: np.ndarray, confidence: float) -> tuple[float, float]:
    """The bounds between which the central draws lie."""
    lower, upper = np.quantile(draws, [(1.0 - confidence) / 2, (1.0 + confidence) / 2])
    return float(lower), float(upper)


def clopper_pearson(num_hits: float, num_trials: float, *, confidence: float = 0.95) -> Estimate:
    """Exact two-sided binomial interval of a share (Clopper & Pearson, Biometrika 1934)."""
    tail, num_misses = (1.0 - confidence) / 2, num_trials - num_hits
    lower = float(stats.beta.ppf(tail, num_hits, num_misses + 1)) if num_hits > 0 else 0.0
    upper = float(stats.beta.isf(tail, num_hits + 1, num_misses)) if num_misses > 0 else 1.0
    return Estimate(num_hits / num_trials, lower, upper)
