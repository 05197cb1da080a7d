"""Membership scores of an audit: what is stored, compared and reported."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from ldm_privacy.audit.views import ViewOf
from ldm_privacy.types import AuditKey, Whose

TUNED = "tuned"
"""Mask label of the keep fraction that a half chose."""


class Fold(NamedTuple):
    """One half that chooses (timestep, keep fraction, whatever is fitted) and the other that reports; both (samples,) bool."""

    chooses: Tensor
    reports: Tensor


class Derived(NamedTuple):
    """What a calibrated score is made of.

    Attributes:
        plain: The attack and mask.
        needs_history: Earlier audits are in it.
        reference: Whose the reference is that is in it; "" where there is none in it.
    """

    plain: AuditKey
    needs_history: bool
    reference: Whose = ""

    @property
    def is_insiders(self) -> bool:
        """Whether it takes what the trainer alone has: the run's checkpoints."""
        return self.needs_history or self.reference == "insider"


@dataclass(frozen=True)
class AuditScores:
    """Membership scores of an audit. All samples are in ascending order of sample index.

    Scores are by fold: fold 0 holds what the calibration half fitted, fold 1 what the other half did; where nothing is fitted
    both hold the same. With one fold the calibration half chooses and the other alone reports.

    Attributes:
        sample_index, is_member, is_calibration: (samples,).
        group: (samples,) group numbers, or None.
        timesteps: Per attack, the timesteps of its scores; empty for attacks with one number for all.
        scores: (folds, timesteps, samples) per attack and mask, higher = member.
        keep_fraction: Of each attack and mask.
        controls: Labels of the masks that a mask of largest influence must beat.
        sweeps: Per attack, scores by (ranking, keep fraction); empty where there is no sweep.
        derived: The calibrated ones among the keys.
        num_fitted: Of the keys whose scores were fitted with labels, how many numbers were; 1 at least where a timestep was
            chosen for a score that has one number for all.
        coefficients: Of calibrations, as series.
        views: The attacks that are others under another condition, by label.
        repeats: (samples,) how often each comes in an epoch of the training; None: members once.
        condition_use: (samples,) float64, see `views.condition_use`; None where it wasn't looked at.
        sigmas: Of a flow, the share of noise at each timestep; otherwise {}.
        by_coins: A fair coin of its own decided of each sample (of each group) whether it is a member, so that an audit bounds
            epsilon.
        reference: As `scores`, the levels (`calibrate.level`) that the reference has under the attacks and masks that are
            compared with it; in no file.
    """

    sample_index: Tensor
    is_member: Tensor
    is_calibration: Tensor
    group: Tensor | None
    timesteps: dict[str, list[int]]
    scores: dict[AuditKey, Tensor]
    keep_fraction: dict[AuditKey, float]
    controls: frozenset[str] = frozenset()
    sweeps: dict[str, dict[tuple[str, float], Tensor]] = field(default_factory=dict)
    derived: dict[AuditKey, Derived] = field(default_factory=dict)
    num_fitted: dict[AuditKey, int] = field(default_factory=dict)
    coefficients: dict[str, float] = field(default_factory=dict)
    views: dict[str, ViewOf] = field(default_factory=dict)
    repeats: Tensor | None = None
    condition_use: Tensor | None = None
    sigmas: dict[int, float] = field(default_factory=dict)
    by_coins: bool = False
    reference: dict[AuditKey, Tensor] = field(default_factory=dict)

    @property
    def folds(self) -> list[Fold]:
        """Both, or the one whose calibration half chooses."""
        return folds_of(self.is_calibration, len(next(iter(self.scores.values()))))

    @property
    def is_reporting(self) -> Tensor:
        """(samples,) bool: reported by one of the folds."""
        return torch.stack([fold.reports for fold in self.folds]).any(0)

    def unmasked(self, attack: str) -> AuditKey | None:
        """The first key of that attack whose mask keeps everything."""
        return next((key for key, kept in self.keep_fraction.items() if key.attack == attack and kept == 1.0), None)

    def reported(self, key: AuditKey) -> Tensor:
        """(timesteps, samples), of each sample what the fold that reports it has; the first fold's of the others."""
        score, (_, reports) = self.scores[key], self.folds[0]
        return torch.where(reports, score[0], score[-1])

    def labels(self, attack: str) -> list[int | None]:
        """What the rows of its scores are called: timesteps, or None where one number is for all."""
        return [*self.timesteps[attack]] or [None]

    def group_of(self, rows: Tensor) -> Tensor | None:
        """Groups of some of the samples."""
        return None if self.group is None else self.group[rows]

    def num_groups(self, among: Tensor | None = None) -> tuple[int, int] | None:
        """Of how many groups the members and the held-out images are, among those samples or all; None without groups."""
        if self.group is None:
            return None
        sides = [side if among is None else side & among for side in (self.is_member, ~self.is_member)]
        members, heldout = (len(self.group[side].unique()) for side in sides)
        return members, heldout


def informed(derived: Mapping[AuditKey, Derived], key: AuditKey, *, with_history: bool) -> AuditKey:
    """The last calibrated score of that attack and mask, of an insider or of an outsider; itself where there is none.

    An outsider has the model, and its reference where that is public; an insider has the run's checkpoints too, so that earlier
    audits are known: the last score that looks at them, where there is one. The order of the config decides which is last.
    """
    mine = [each for each, of in derived.items() if of.plain == key and each.attack.startswith(f"{key.attack}_")]
    outsider = [key, *(each for each in mine if not derived[each].is_insiders)][-1]
    return [outsider, *(each for each in mine if with_history and derived[each].is_insiders)][-1]


def forms(derived: Mapping[AuditKey, Derived], key: AuditKey) -> list[AuditKey]:
    """That attack and mask, then what an outsider and an insider make of it, where that is something else; see `informed`."""
    return list(dict.fromkeys([key, *(informed(derived, key, with_history=known) for known in (False, True))]))


def is_alike(score: Tensor) -> bool:
    """Whether (folds, ...) scores are the same in all folds because nothing is fitted: one tensor, seen twice."""
    return len(score) == 1 or score.stride(0) == 0


def folds_of(is_calibration: Tensor, num_folds: int) -> list[Fold]:
    """The folds of samples whose calibration half is that."""
    return [Fold(is_calibration, ~is_calibration), Fold(~is_calibration, is_calibration)][:num_folds]


def by_fold(reported: Tensor, chosen: Tensor, folds: list[Fold]) -> Tensor:
    """(folds, ..., samples) from what each sample has as one that reports and as one that chooses; each (..., samples)."""
    return torch.stack([torch.where(fold.reports, reported, chosen) for fold in folds])
