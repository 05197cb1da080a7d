"""Placements: where each sample of one side stands among the samples of the other side."""

import numpy as np
import torch
from torch import Tensor


class Ordered:
    """Rows of scores in ascending order.

    `order`: (rows, samples), the sample at each place; ties have places next to each other. O(samples log samples) a row.
    """

    def __init__(self, rows: np.ndarray):
        self.order = np.argsort(rows, axis=-1)
        ordered = np.empty_like(rows)
        for values, places, found in zip(rows, self.order, ordered):
            np.take(values, places, out=found, mode="clip")  # in range: nothing is clipped, and nothing checked
        self._is_tied = ordered[:, 1:] == ordered[:, :-1]

    def counted(self, counts: np.ndarray | None = None) -> np.ndarray:
        """At each place what counts below it, plus what counts below it or ties with it: (rows, samples) exact integers.

        `counts`: (rows, samples) bool, by place; every sample counts where None.
        """
        size = self.order.shape[-1]
        if counts is None:
            before = np.broadcast_to(np.arange(size + 1), (len(self.order), size + 1))
        else:
            before = np.zeros((len(self.order), size + 1), dtype=np.int64)
            np.cumsum(counts, axis=-1, out=before[:, 1:])
        found = before[:, :-1] + before[:, 1:]
        for row in np.flatnonzero(self._is_tied.any(axis=-1)):
            start = np.flatnonzero(np.append(True, ~self._is_tied[row]))
            end = np.append(start[1:], size)
            found[row] = np.repeat(before[row, start] + before[row, end], end - start)
        return found

    def by_sample(self, value: np.ndarray) -> np.ndarray:
        """(rows, samples) by place -> float64 by sample."""
        found = np.empty(value.shape)
        np.put_along_axis(found, self.order, value, -1)
        return found


def twice_num_in_order(member: np.ndarray, heldout: np.ndarray) -> int:
    """2 * (pairs of a member above a held-out sample) + (tied pairs), of one row: an exact integer."""
    member, heldout = np.sort(member), np.sort(heldout)
    # Sorted queries walk through memory in order, which more than pays for the sort.
    below = heldout.searchsorted(member)
    is_tied = heldout[np.minimum(below, len(heldout) - 1)] == member
    twice = 2 * int(below.sum())
    if is_tied.any():
        twice += int(heldout.searchsorted(member[is_tied], side="right").sum() - below[is_tied].sum())
    return twice


def placements(score: Tensor, is_member: Tensor) -> tuple[Tensor, Tensor]:
    """The two structural components of the AUROC; ties count one half.

    `V10_i = mean_j [y_j < x_i] + [y_j = x_i] / 2` for members x, `V01_j = mean_i [x_i > y_j] + [x_i = y_j] / 2` for
    held-out y: (..., members) and (..., held-out), float64 in [0, 1]. Both have the AUROC as their mean. Sort based, as in
    Sun & Xu 2014 ("Fast implementation of DeLong's algorithm", IEEE Signal Processing Letters 21), not the members x
    held-out table of DeLong, DeLong & Clarke-Pearson 1988. The scores, (..., samples) float64, are checked already.
    """
    rows, label = score.reshape(-1, score.shape[-1]).cpu().numpy(), is_member.cpu().numpy()
    ordered = Ordered(rows)
    on_side = label[ordered.order]
    heldout_below = ordered.counted(~on_side)
    twice = ordered.by_sample(np.where(on_side, heldout_below, ordered.counted() - heldout_below))
    num_members = int(label.sum())
    member, heldout = twice[:, label] / (2 * (label.size - num_members)), 1.0 - twice[:, ~label] / (2 * num_members)

    def like_score(value: np.ndarray) -> Tensor:
        return torch.from_numpy(value).reshape(*score.shape[:-1], value.shape[1]).to(score.device)

    return like_score(member), like_score(heldout)
