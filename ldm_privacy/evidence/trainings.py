"""Whole trainings as lines from quality to AUROC, and how those lines would run with other samples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from ldm_privacy.evidence.strongest import Strongest
from ldm_privacy.metrics.resampling import bootstrap_generator, sides_of
from ldm_privacy.types import Estimate, Intervals

_CHUNK = 64
"""Resamples that are held at a time."""


class Point(NamedTuple):
    """An audit and the quality of what the denoiser generates then; of quality lower is better."""

    epoch: int
    attack: Strongest
    quality: Estimate


class Line(NamedTuple):
    """A training, or draws of it: AUROC and quality at its audits, each (..., audits); by how much the latter may be off."""

    auroc: np.ndarray
    quality: np.ndarray
    margin: np.ndarray

    @property
    def best(self) -> np.ndarray:
        """(...) the best quality that it reaches."""
        return self.quality.min(-1)

    @property
    def surely(self) -> np.ndarray:
        """(...) the best quality that it surely reaches: the least upper bound."""
        return (self.quality + self.margin).min(-1)

    def at(self, quality: np.ndarray) -> np.ndarray:
        """(...) AUROC where the training reaches that quality, which it must.

        At the first audit whose quality is as good, or between it and the audit before, which is not: linear in the quality.
        What comes after the first audit that is good enough, better or worse, is not looked at: one could have stopped there.
        """
        after = (self.quality <= np.asarray(quality)[..., None]).argmax(-1, keepdims=True)
        before = np.maximum(after - 1, 0)
        (far, near), (then, now) = (
            [np.take_along_axis(values, place, -1)[..., 0] for place in (before, after)]
            for values in (self.quality, self.auroc)
        )
        step = far - near
        share = np.divide(far - quality, step, out=np.ones_like(step), where=step > 0)
        return then + share * (now - then)


@dataclass(frozen=True, eq=False)
class Training:
    """One training of a cell.

    Attributes:
        seed: Of the training and of its split: trainings of one seed have the same samples, whatever their cell.
        split_hash: Of who is a member.
        points: By epoch, at least one.
        is_member, group: (samples,) of whoever was audited, in the order of `Strongest.sample_index`.
        has_ended: No further audit is to come.
        name: Of its folder.
    """

    seed: int
    split_hash: str
    points: Sequence[Point]
    is_member: Tensor
    group: Tensor | None = None
    has_ended: bool = True
    name: str = ""

    @property
    def sample_index(self) -> Tensor:
        """(samples,), ascending."""
        return self.points[-1].attack.sample_index

    @property
    def line(self) -> Line:
        """As it came out."""
        quality = [each.quality for each in self.points]
        return Line(
            np.array([each.attack.auroc.value for each in self.points]),
            np.array([each.value for each in quality]),
            np.array([(each.upper - each.lower) / 2 for each in quality]),
        )


def drawn(trainings: Mapping[str, Training], intervals: Intervals) -> dict[str, Line]:
    """Trainings of one seed, by cell, with their samples resampled: a line of `num_bootstrap` draws each.

    AUROCs: members and held-out samples are drawn anew with replacement (whole groups, where there are groups), the same draw
    for every cell and audit, so that what cells share cancels in their differences; to first order (`Strongest.error`), with
    the attacks that were chosen. Quality has no numbers by sample: each look is normal with the width of its interval,
    independent of every other, which makes differences of quality wider than they are where looks share their noise. Draws of
    other seeds are others, so that what is random in them averages out over seeds.

    Returns:
        The same for any order of cells. O(draws x samples x audits).
    """
    purpose = f"frontier {next(iter(trainings.values())).seed}"
    index = torch.cat([each.sample_index for each in trainings.values()])
    index, place = (torch.from_numpy(each) for each in np.unique(index.numpy(), return_index=True))
    is_member = torch.cat([each.is_member for each in trainings.values()])[place]
    groups = [each.group for each in trainings.values() if each.group is not None]
    sides = sides_of(is_member, torch.cat(groups)[place] if len(groups) == len(trainings) else None)
    points = [(label, point) for label, each in trainings.items() for point in each.points]
    error = torch.zeros(len(index), len(points), dtype=torch.float64)
    for column, (_, point) in enumerate(points):
        error[torch.searchsorted(index, point.attack.sample_index), column] = point.attack.error
    on_side, parts, counts = [error[is_member].numpy(), error[~is_member].numpy()], list[np.ndarray](), list[tuple]()
    for count in sides.resamples(purpose, intervals.num_bootstrap, intervals.seed):
        counts.append(count)
        if len(counts) == _CHUNK:
            parts, counts = [*parts, _moved(counts, on_side)], []
    moved = np.concatenate([*parts, *([_moved(counts, on_side)] if counts else [])])
    quantile, lines = float(stats.norm.isf((1 - intervals.confidence) / 2)), dict[str, Line]()
    for label, training in trainings.items():
        mine = [column for column, (owner, _) in enumerate(points) if owner == label]
        noise = bootstrap_generator(f"{purpose} {label}", intervals.seed).normal(size=(2, len(moved), len(mine)))
        unseen, line = np.array([each.attack.unseen for each in training.points]), training.line
        auroc = line.auroc + moved[:, mine] + unseen * noise[0]
        lines[label] = Line(auroc, line.quality + line.margin / quantile * noise[1], line.margin)
    return lines


def _moved(counts: Sequence[tuple[np.ndarray, np.ndarray]], on_side: Sequence[np.ndarray]) -> np.ndarray:
    """(draws, points) by how much the AUROCs move where samples count that often."""
    return sum(np.stack(count).astype(np.float64) @ error - error.sum(0) for count, error in zip(zip(*counts), on_side))
