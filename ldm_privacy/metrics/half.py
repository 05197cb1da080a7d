"""One of two halves of the samples that chose for each other, and what it says of what it reports."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ldm_privacy.metrics.auroc import auroc
from ldm_privacy.metrics.checks import check_scores
from ldm_privacy.metrics.placements import placements
from ldm_privacy.metrics.resampling import Sides, sides_of

_MAX_UNITS = 1000


@dataclass(frozen=True, eq=False)
class Half:
    """One half of the samples, as it reports.

    Attributes:
        score: (candidates, samples), higher = member: every candidate that the other half could have chosen, as it would be
            reported on this half. (samples,) where there was nothing to choose.
        is_member: (samples,) bool.
        chosen: The candidate that the other half did choose.
        num_fitted: How many coefficients the other half fitted with its labels to make the scores: features of a logistic
            regression; 1 where only the orientation was free; 0 where nothing was fitted. What was fitted on held-out samples
            alone doesn't count.
        group: (samples,) labels where samples are not independent.
        area: (candidates,) AUROCs of `score` where they are known already; computed otherwise.
    """

    score: Tensor
    is_member: Tensor
    chosen: int = 0
    num_fitted: int = 0
    group: Tensor | None = None
    area: Tensor | None = None

    @property
    def candidates(self) -> Tensor:
        """(candidates, samples)."""
        score = torch.as_tensor(self.score)
        return score[None] if score.ndim == 1 else score

    @property
    def reported(self) -> Tensor:
        """(samples,) scores of the chosen candidate."""
        return self.candidates[self.chosen]

    def among(self, rows: Tensor) -> "Half":
        """The same of some of its samples, (samples,) bool."""
        if rows.all():
            return self
        group = None if self.group is None else torch.as_tensor(self.group)[rows]
        return replace(self, score=self.candidates[:, rows], is_member=self.is_member[rows], group=group, area=None)

    @cached_property
    def areas(self) -> np.ndarray:
        """(candidates,) AUROCs."""
        known = auroc(self.candidates, self.is_member) if self.area is None else torch.as_tensor(self.area)
        return known.double().cpu().numpy()

    @cached_property
    def sides(self) -> Sides:
        """Members and held-out samples, in their groups where there are some."""
        return sides_of(self.is_member, self.group)

    @cached_property
    def placed(self) -> tuple[np.ndarray, np.ndarray]:
        """Placements of `reported`, of members and of held-out samples."""
        member, heldout = placements(*check_scores(self.reported, self.is_member))
        return member.cpu().numpy(), heldout.cpu().numpy()

    @cached_property
    def deviations(self) -> np.ndarray:
        """(candidates, units): `deviations @ deviations.T` is the covariance of the AUROCs' errors (DeLong; Obuchowski).

        Placements minus their mean, summed over groups, of at most 1,000 units (samples, or groups) a side, and scaled.
        """
        is_member = self.is_member.cpu()
        taken, share = torch.zeros(len(is_member), dtype=torch.bool), []
        for on_side, side in ((is_member, self.sides.member), (~is_member, self.sides.heldout)):
            unit = np.arange(side.num_units) if side.unit is None else side.unit
            is_taken = unit % -(-side.num_units // _MAX_UNITS) == 0
            taken[on_side] = torch.from_numpy(is_taken)
            share.append(len(np.unique(unit[is_taken])) / side.num_units)
        part = sides_of(is_member[taken], None if self.group is None else torch.as_tensor(self.group)[taken])
        score, is_member = check_scores(self.candidates[:, taken], is_member[taken])
        placed = (each.cpu().numpy() for each in placements(score, is_member))
        return np.concatenate([side.mean_deviations(each) * one**0.5 for side, each, one in zip(part, placed, share)], axis=1)


class Part(NamedTuple):
    """What one half says of what it reports, or of the difference of two."""

    value: float
    """AUROC, or a's minus b's."""
    variance: float
    is_degenerate: bool
    """Nothing estimates the variance: no spread, or one sample (or group) on a side."""

    @classmethod
    def of(cls, halves: Sequence[Half]) -> "Part":
        """Of [half], or of [a, b] on the same samples."""
        scores, sides = [half.reported for half in halves], halves[0].sides
        for score in scores:
            check_scores(score, halves[0].is_member)
        terms = [half.placed for half in halves]
        if len(scores) == 2 and torch.equal(*scores):
            return cls(0.0, 0.0, False)
        member, heldout = (each[0] - each[1] if len(each) == 2 else each[0] for each in zip(*terms))
        value = float(member.mean() if len(scores) == 2 else halves[0].areas[halves[0].chosen])
        if sides.num_pairs < 2 or (np.ptp(member) == 0 and np.ptp(heldout) == 0):
            return cls(value, 0.0, True)
        return cls(value, sides.member.mean_variance(member) + sides.heldout.mean_variance(heldout), False)
