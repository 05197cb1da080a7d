"""Placements: where each sample of one side stands among the samples of the other side."""

import numpy as np
import torch
from torch import Tensor


def sorted_runs(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The ascending order of each row of (rows, samples), and the run of equal values that each sorted place belongs to.

    `order`, `first`, `last`, each (rows, samples): the value at a sorted place stands at the places first to last - 1, so that
    `first` values are below it and `last - first` equal to it.
    """
    order = np.argsort(rows, axis=-1)
    ordered, place = np.take_along_axis(rows, order, -1), np.arange(rows.shape[-1])
    first, last = np.broadcast_to(place, rows.shape), np.broadcast_to(place + 1, rows.shape)
    is_tied = ordered[:, 1:] == ordered[:, :-1]
    if is_tied.any():
        first, last = first.copy(), last.copy()
        first[:, 1:][is_tied] = 0
        last[:, :-1][is_tied] = len(place)
        first = np.maximum.accumulate(first, axis=-1)
        last = np.minimum.accumulate(last[:, ::-1], axis=-1)[:, ::-1]
    return order, first, last


def twice_num_in_order(member: np.ndarray, heldout: np.ndarray) -> int:
    """2 * (pairs of a member above a held-out sample) + (tied pairs), of one row: an exact integer."""
    member, heldout = np.sort(member), np.sort(heldout)
    # Sorted queries walk through memory in order, which more than pays for the sort.
    below = heldout.searchsorted(member)
    is_tied = heldout[np.minimum(below, len(heldout) - 1)] == member
    num_tied = heldout.searchsorted(member[is_tied], side="right").sum() - below[is_tied].sum()
    return 2 * int(below.sum()) + int(num_tied)


def placements(score: Tensor, is_member: Tensor) -> tuple[Tensor, Tensor]:
    """The two structural components of the AUROC; ties count one half.

    `V10_i = mean_j [y_j < x_i] + [y_j = x_i] / 2` for members x, `V01_j = mean_i [x_i > y_j] + [x_i = y_j] / 2` for
    held-out y: (..., members) and (..., held-out), float64 in [0, 1]. Both have the AUROC as their mean. Sort based, as in
    Sun & Xu 2014 ("Fast implementation of DeLong's algorithm", IEEE Signal Processing Letters 21), not the members x
    held-out table of DeLong, DeLong & Clarke-Pearson 1988. The scores, (..., samples) float64, are checked already.
    """
    rows, label = score.reshape(-1, score.shape[-1]).cpu().numpy(), is_member.cpu().numpy()
    order, first, last = sorted_runs(rows)
    twice = np.empty(rows.shape)
    for side, other in ((label, ~label), (~label, label)):
        # How many of the other side stand before each sorted place.
        before = np.pad(np.cumsum(other[order], axis=-1), ((0, 0), (1, 0)))
        below = np.take_along_axis(before, first, -1) + np.take_along_axis(before, last, -1)
        here = side[order]
        twice[np.nonzero(here)[0], order[here]] = below[here] / (2 * other.sum())
    placed = torch.from_numpy(twice).reshape(score.shape).to(score.device)
    return placed[..., is_member], 1.0 - placed[..., ~is_member]
