"""A number of several trainings: its mean, its spread, and an interval that is over the samples and over the trainings."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from ldm_privacy.types import Estimate


@dataclass(frozen=True)
class OverSeeds:
    """The mean of a number over trainings that differ in their seed.

    Attributes:
        by_seed: Of each training, with its interval over the samples.
        deviation: Standard deviation between the trainings; NaN of a single one.
        error: Standard deviation of the mean over the samples.
        samples: The mean; its interval is over the samples alone, and holds the trainings as they are.
        trainings: The mean; its interval is Student's over the trainings. None of a single one.
    """

    by_seed: dict[int, Estimate]
    deviation: float
    error: float
    samples: Estimate
    trainings: Estimate | None

    @property
    def mean(self) -> Estimate:
        """The wider of both intervals: each training has samples of its own, so its spread should hold both kinds of chance;
        but the spread of a few is small now and then by luck."""
        both = [self.samples] if self.trainings is None else [self.samples, self.trainings]
        return max(both, key=lambda each: each.upper - each.lower)

    @property
    def range(self) -> tuple[float, float]:
        """The least and the greatest of the trainings."""
        values = [each.value for each in self.by_seed.values()]
        return min(values), max(values)

    @property
    def is_certain(self) -> bool:
        """Whether both intervals leave 0 out; never of a single training, which says nothing of another."""
        return self.trainings is not None and self.samples.leaves_out(0.0) and self.trainings.leaves_out(0.0)

    def within(self, least: float, most: float) -> "OverSeeds":
        """The same of a number that has an end on either side: so have its bounds."""

        def cut(each: Estimate) -> Estimate:
            return Estimate(each.value, max(least, each.lower), min(most, each.upper))

        trainings = None if self.trainings is None else cut(self.trainings)
        by_seed = {seed: cut(each) for seed, each in self.by_seed.items()}
        return replace(self, by_seed=by_seed, samples=cut(self.samples), trainings=trainings)


def over_seeds(by_seed: Mapping[int, tuple[float, float]], *, confidence: float = 0.95) -> OverSeeds:
    """The mean over trainings, of (value, standard deviation over the samples) by seed; at least one.

    Over the samples: normal, variance `sum v_s / n^2`, trainings of other seeds having other samples. Over the trainings:
    Student's t with n - 1 degrees of freedom, which reaches 12.7 standard errors to either side for two trainings, 4.3 for
    three and 2.8 for five.
    """
    values, count, tail = np.array([value for value, _ in by_seed.values()]), len(by_seed), (1 - confidence) / 2
    normal, mean = float(stats.norm.isf(tail)), float(values.mean())
    each = {seed: Estimate(value, value - normal * error, value + normal * error) for seed, (value, error) in by_seed.items()}
    error = math.hypot(*(error for _, error in by_seed.values())) / count
    samples = Estimate(mean, mean - normal * error, mean + normal * error)
    if count == 1:
        return OverSeeds(each, math.nan, error, samples, None)
    deviation = float(values.std(ddof=1))
    reach = float(stats.t.isf(tail, count - 1)) * deviation / count**0.5
    return OverSeeds(each, deviation, error, samples, Estimate(mean, mean - reach, mean + reach))
