"""Resampling of members and held-out samples, single or in whole groups, and the exact binomial interval."""

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


def side_resamplers(is_member: Tensor, group: Tensor | None) -> tuple[SideResampler, SideResampler]:
    """Resamplers of the members and of the held-out samples, each in the order of the samples.

    Raises:
        UserError: as many groups as samples are not given, or a group has samples on both sides.
    """
    member = is_member.cpu().numpy()
    if group is None:
        return SideResampler(int(member.sum())), SideResampler(int((~member).sum()))
    label = np.asarray(group)
    if label.shape != member.shape:
        raise UserError(f"{label.size} group labels for {member.size} samples: pass one label per sample.")
    shared = np.intersect1d(label[member], label[~member])
    if shared.size:
        raise UserError(f"group {shared[0]} has members and held-out samples: split the data by group.")
    return SideResampler(member.sum(), label[member]), SideResampler((~member).sum(), label[~member])


def mean_variance(term: np.ndarray, side: SideResampler) -> float:
    """Variance of the mean of the terms, whose units (samples or groups) are independent."""
    deviation = term - term.mean()
    if side.unit is not None:
        deviation = np.bincount(side.unit, weights=deviation)
    return float(side.num_units / (side.num_units - 1) * (deviation @ deviation) / term.size**2)


def bootstrap_generator(purpose: str, seed: int) -> np.random.Generator:
    """The generator of one metric's bootstrap: a pure function of its purpose and the run's seed."""
    return np.random.default_rng(derive_seed(f"bootstrap {purpose}", seed))


def clopper_pearson(num_hits: float, num_trials: float, *, confidence: float = 0.95) -> Estimate:
    """Exact two-sided binomial interval of a share (Clopper & Pearson, Biometrika 1934)."""
    tail, num_misses = (1.0 - confidence) / 2, num_trials - num_hits
    lower = float(stats.beta.ppf(tail, num_hits, num_misses + 1)) if num_hits > 0 else 0.0
    upper = float(stats.beta.isf(tail, num_hits + 1, num_misses)) if num_misses > 0 else 1.0
    return Estimate(num_hits / num_trials, lower, upper)
