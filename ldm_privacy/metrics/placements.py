"""Placements: where each sample of one side stands among the samples of the other side."""

import torch
from torch import Tensor


def twice_num_below(value: Tensor, other: Tensor) -> Tensor:
    """For each value: 2 * (how many of `other` are below) + (how many are equal); exact integers.

    (..., values) and (..., others) -> int64 (..., values). O((values + others) log others).
    """
    ordered, value = other.sort(dim=-1).values.contiguous(), value.contiguous()
    return torch.searchsorted(ordered, value) + torch.searchsorted(ordered, value, right=True)


def placements(score: Tensor, is_member: Tensor) -> tuple[Tensor, Tensor]:
    """The two structural components of the AUROC; ties count one half.

    `V10_i = mean_j [y_j < x_i] + [y_j = x_i] / 2` for members x, `V01_j = mean_i [x_i > y_j] + [x_i = y_j] / 2` for
    held-out y: (..., members) and (..., held-out), float64 in [0, 1]. Both have the AUROC as their mean. Sort based, as in
    Sun & Xu 2014 ("Fast implementation of DeLong's algorithm", IEEE Signal Processing Letters 21), not the members x
    held-out table of DeLong, DeLong & Clarke-Pearson 1988. The scores, (..., samples) float64, are checked already.
    """
    member, heldout = score[..., is_member], score[..., ~is_member]
    member_placement = twice_num_below(member, heldout).double() / (2 * heldout.shape[-1])
    heldout_placement = 1.0 - twice_num_below(heldout, member).double() / (2 * member.shape[-1])
    return member_placement, heldout_placement
