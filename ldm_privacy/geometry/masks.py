"""How many dimensions a mask keeps, and keeping them by rank: shared by the mask rules."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from ldm_privacy.errors import UserError
from ldm_privacy.types import KeepMask

CountRule = Literal["count", "percentile"]
RanksBy = Literal["influence", "deviation"]
"""What a mask rule wants as its first argument: the influence of each sample, or `latent_deviation` for all alike."""


def check_keep_fraction(keep_fraction: float) -> None:
    """Raise UserError unless keep_fraction is in (0, 1]."""
    if not 0 < keep_fraction <= 1:
        raise UserError(f"keep_fraction: {keep_fraction} is outside (0, 1]. 0.6 keeps 60 % of the latent's dimensions.")


def check_mask(keep_fraction: float, rule: CountRule) -> None:
    """Raise UserError unless keep_fraction is in (0, 1] and the rule is known."""
    check_keep_fraction(keep_fraction)
    if rule not in ("count", "percentile"):
        raise UserError(f"rule: unknown mask rule '{rule}'. Use 'count' or 'percentile'.")


def num_kept(num_dimensions: int, keep_fraction: float, rule: CountRule = "count") -> int:
    """Dimensions that a mask of this fraction keeps.

    count: round(keep_fraction * num_dimensions), Python's round (half to even) of the floating-point product.
    percentile: those strictly above the row's (1 - keep_fraction) percentile with linear interpolation, where no two are
    equal: D - 1 - floor((1 - keep_fraction) (D - 1)); 153 of 256 for 0.6, where count keeps 154.

    Both keep all for fraction 1.

    Raises:
        UserError: That is none.
    """
    if rule == "percentile" and keep_fraction < 1:
        kept = num_dimensions - 1 - percentile_rank(num_dimensions, keep_fraction)
    else:
        kept = round(keep_fraction * num_dimensions)
    if kept < 1:
        raise UserError(f"keep_fraction: {keep_fraction} keeps none of {num_dimensions} dimensions. Use a larger one.")
    return kept


def percentile_rank(num_dimensions: int, keep_fraction: float) -> int:
    """The ascending rank (from 0) at or just below the percentile: strictly above the percentile = strictly above its value.

    Linear interpolation lies between this value and the next; it reaches neither the next nor, off the integers, this one.
    The percentile is rounded to 1e-10 so that keep fraction 0.7 means the 30th, not the 30.000000000000004th.
    """
    return int((num_dimensions - 1) * (round(100 * (1 - keep_fraction), 10) / 100))


def keep_ladder(value: Tensor, keep_fractions: Sequence[float]) -> KeepMask:
    """Masks of many sizes from one sort: (fractions, *value.shape), each equal to `keep_largest` with its own count.

    Args:
        value: (batch, ...), ranked within each row.
        keep_fractions: Each in (0, 1].

    Raises:
        UserError: A fraction is outside (0, 1] or keeps none.
    """
    flat = value.flatten(1)
    rank = flat.sort(dim=1, descending=True, stable=True).indices.argsort(dim=1)
    for fraction in keep_fractions:
        check_keep_fraction(fraction)
    counts = torch.tensor([num_kept(flat.shape[1], fraction) for fraction in keep_fractions], device=value.device)
    return (rank < counts[:, None, None]).reshape(len(counts), *value.shape)


def keep_largest(value: Tensor, count: int) -> KeepMask:
    """The `count` largest of each row (batch, ...), ties to the lower index."""
    flat = value.flatten(1)
    order = flat.sort(dim=1, descending=True, stable=True).indices[:, :count]
    return torch.zeros_like(flat, dtype=torch.bool).scatter_(1, order, True).reshape(value.shape)
