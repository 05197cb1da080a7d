"""Mask rules: rank the dimensions of a latent by something, keep the largest or the smallest."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ldm_privacy.errors import UserError
from ldm_privacy.randomness import uniform
from ldm_privacy.registry import MASK_RULES
from ldm_privacy.types import KeepMask

CountRule = Literal["count", "percentile"]
RanksBy = Literal["influence", "deviation", "latent", "nothing"]
"""What a rule wants as its first argument: the influence of each sample, `latent_deviation` for all alike, the latent itself,
or anything of its shape."""


@MASK_RULES.register("all")
class KeepAll:
    """Keep every dimension: the unmasked attack."""

    ranks_by: ClassVar[RanksBy] = "nothing"
    is_control: ClassVar[bool] = False
    keep_fraction: float = 1.0

    def __call__(self, ranking: Tensor, sample_index: Tensor) -> KeepMask:
        """(batch, channels, height, width) bool, all True."""
        return torch.ones_like(ranking, dtype=torch.bool)


@dataclass(frozen=True)
class _KeepByRank:
    """Keep as many dimensions as the fraction says, those that come first in `order`."""

    ranks_by: ClassVar[RanksBy] = "influence"
    is_control: ClassVar[bool] = True
    keep_fraction: float = 0.6
    _: KW_ONLY
    rule: CountRule = "count"

    def __post_init__(self) -> None:
        check_keep_fraction(self.keep_fraction)
        if self.rule not in ("count", "percentile"):
            raise UserError(f"rule: unknown mask rule '{self.rule}'. Use 'count' or 'percentile'.")

    def __call__(self, ranking: Tensor, sample_index: Tensor) -> KeepMask:
        """(batch, channels, height, width) bool, like `ranking`; `sample_index` (batch,) seeds what is random."""
        count = num_kept(ranking.shape[1:].numel(), self.keep_fraction, self.rule)
        return keep_largest(self.order(ranking, sample_index), count)

    def order(self, ranking: Tensor, sample_index: Tensor) -> Tensor:
        """Like `ranking`; the largest are kept."""
        return ranking


@MASK_RULES.register("top")
class KeepTopInfluence(_KeepByRank):
    """Keep the dimensions of largest influence, per sample.

    Any increasing function of the influence (its logarithm, that in other latent units) gives the same mask. No randomness.

    Args:
        keep_fraction: In (0, 1], keeping one dimension at least.
        rule: "count" keeps exactly round(keep_fraction * D), ties to the lower index. "percentile" is the published rule
            (Rao, Qu, Moyer 2025, 2511.20592): strictly above the row's (1 - keep_fraction) percentile, linear
            interpolation; 153 of 256 for 0.6, fewer where values are equal.
    """

    is_control: ClassVar[bool] = False

    def __call__(self, ranking: Tensor, sample_index: Tensor) -> KeepMask:
        if self.rule == "count" or self.keep_fraction == 1:
            return super().__call__(ranking, sample_index)
        flat = ranking.flatten(1)
        # Strictly above the percentile = strictly above the largest value that is left out, at or just below it.
        left_out = num_kept(flat.shape[1], self.keep_fraction, self.rule)
        return (flat > flat.sort(dim=1, descending=True).values[:, left_out, None]).reshape(ranking.shape)


@MASK_RULES.register("deviation")
class KeepTopDeviation(KeepTopInfluence):
    """Keep the dimensions of largest standard deviation over samples: tells influence from the spread of the latents.

    Influence and the variance of a latent dimension are confounded: whitening the channels can turn the sign of a masked
    gain. A gain of `KeepTopInfluence` speaks for influence only where this mask of the same count does not have it.

    Arguments, counts, ties and errors are those of `KeepTopInfluence`. When called, the first argument is the deviation of
    each dimension (`latent_deviation`), expanded over the batch: every sample has the same mask.
    """

    ranks_by: ClassVar[RanksBy] = "deviation"
    is_control: ClassVar[bool] = True


@MASK_RULES.register("lowest")
class KeepLowestInfluence(_KeepByRank):
    """Keep the dimensions of lowest influence, per sample: the control that should lose what `KeepTopInfluence` gains.

    Arguments and errors are those of `KeepTopInfluence`, whose count is kept for either rule. Ties go to the lower index.
    """

    def order(self, ranking: Tensor, sample_index: Tensor) -> Tensor:
        """Lowest first."""
        return -ranking


@MASK_RULES.register("random")
@dataclass(frozen=True)
class KeepRandom(_KeepByRank):
    """Keep random dimensions, drawn per sample: the control that tells the count of a mask from its choice.

    A sample's mask is a function of (seed, sample index) alone. Other arguments and errors are those of `KeepTopInfluence`,
    whose count is kept for either rule.
    """

    ranks_by: ClassVar[RanksBy] = "nothing"
    _: KW_ONLY
    seed: int = 0

    def order(self, ranking: Tensor, sample_index: Tensor) -> Tensor:
        """Uniform numbers; only the shape and device of `ranking` are looked at."""
        return uniform("mask", (self.seed, sample_index.to(ranking.device)), ranking.shape[1:], ranking.device)


def check_keep_fraction(keep_fraction: float) -> None:
    """Raise UserError unless keep_fraction is in (0, 1]."""
    if not 0 < keep_fraction <= 1:
        raise UserError(f"keep_fraction: {keep_fraction} is outside (0, 1]. 0.6 keeps 60 % of the latent's dimensions.")


def num_kept(num_dimensions: int, keep_fraction: float, rule: CountRule = "count") -> int:
    """Dimensions that a mask of this fraction keeps.

    count: round(keep_fraction * num_dimensions), Python's round (half to even) of the floating-point product.
    percentile: those strictly above the row's (1 - keep_fraction) percentile with linear interpolation, where no two are
    equal: D - 1 - floor((1 - keep_fraction) (D - 1)); 153 of 256 for 0.6, where count keeps 154.

    Both keep all for fraction 1. Raises UserError where that is none.
    """
    kept = round(keep_fraction * num_dimensions)
    if rule == "percentile" and keep_fraction < 1:
        # The percentile is rounded so that keep fraction 0.7 means the 30th, not the 30.000000000000004th.
        kept = num_dimensions - 1 - int((num_dimensions - 1) * (round(100 * (1 - keep_fraction), 10) / 100))
    if kept < 1:
        raise UserError(f"keep_fraction: {keep_fraction} keeps none of {num_dimensions} dimensions. Use a larger one.")
    return kept


def keep_largest(value: Tensor, count: int) -> KeepMask:
    """The `count` largest of each row (batch, ...), ties to the lower index."""
    return _rank(value) < count


def keep_ladder(value: Tensor, keep_fractions: Sequence[float]) -> KeepMask:
    """Masks of many sizes from one sort: (fractions, *value.shape), each equal to `keep_largest` with its own count.

    `value` (batch, ...) is ranked within each row. Raises UserError where a fraction is outside (0, 1] or keeps none.
    """
    for fraction in keep_fractions:
        check_keep_fraction(fraction)
    counts = torch.tensor([num_kept(value.shape[1:].numel(), fraction) for fraction in keep_fractions], device=value.device)
    return _rank(value) < counts.reshape(-1, *[1] * value.ndim)


def _rank(value: Tensor) -> Tensor:
    """Place of each number in its row (batch, ...), 0 = the largest, ties to the lower index."""
    order = value.flatten(1).sort(dim=1, descending=True, stable=True).indices
    place = torch.arange(order.shape[1], device=value.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, place).reshape(value.shape)
