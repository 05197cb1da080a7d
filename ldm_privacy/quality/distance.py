"""What a distance between two sets of images is: a number, and how far each image moves it."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from ldm_privacy.metrics.resampling import SideResampler
from ldm_privacy.types import Estimate


@dataclass(frozen=True, eq=False)
class Distance:
    """A distance of generated from reference images, with what its interval is made of.

    The two sets are independent, so the variance of the value is the sum of the squares of both sides' deviations.

    Attributes:
        value: The distance; lower is nearer.
        of_generated: (units,) float64, how far each generation, or each group of them, moves the value.
        of_reference: (units,) float64, the same of the reference images.
    """

    value: float
    of_generated: Tensor
    of_reference: Tensor

    def estimate(self, confidence: float = 0.95) -> Estimate:
        """With its normal interval, over generations and reference images; given the two networks and the split."""
        return _interval(self.value, [self.of_generated, self.of_reference], confidence)


def gap(members: Distance, heldout: Distance, confidence: float = 0.95) -> Estimate:
    """How much farther the same generations are from the members than from held-out images; below 0: nearer to the members.

    Paired over the generations: what moves both distances alike falls out.
    """
    moved = [members.of_generated - heldout.of_generated, members.of_reference, heldout.of_reference]
    return _interval(members.value - heldout.value, moved, confidence)


def deviations(term: Tensor, group: Tensor | None = None) -> Tensor:
    """Of a value that is, to first order, a mean of terms of (samples,): (units,) deviations whose squares sum to its variance.

    `group`: (samples,) labels of samples that are one unit.
    """
    label = None if group is None else np.asarray(group)
    return torch.from_numpy(SideResampler(len(term), label).mean_deviations(term.double().numpy()[None])[0])


def _interval(value: float, deviations: list[Tensor], confidence: float) -> Estimate:
    spread = float(sum(each.square().sum() for each in deviations)) ** 0.5
    half = float(stats.norm.ppf((1 + confidence) / 2)) * spread
    return Estimate(value, value - half, value + half)
