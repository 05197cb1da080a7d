"""What privacy costs: AUROC against quality over the cells of a sweep, and which cell buys privacy at equal quality."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from scipy import stats

from ldm_privacy.errors import UserError
from ldm_privacy.evidence.cell import Cell
from ldm_privacy.evidence.over_seeds import OverSeeds, over_seeds
from ldm_privacy.evidence.trainings import Line, Training, drawn
from ldm_privacy.metrics import holm
from ldm_privacy.types import Intervals


@dataclass(frozen=True)
class Compared:
    """A cell beside the baseline, over the seeds in which both have ended.

    Attributes:
        auroc: At equal quality, the cell's minus the baseline's: where the training of either first has the best quality that
            both surely reach. (At the very best, a training whose quality stands still would be read at an audit that chance
            picks.)
        best: Best quality that the cell reaches, minus the baseline's; above 0 = worse.
        level: By seed, the quality at which they are compared.
        is_own: Of each seed, whether that is what the cell surely reaches, the baseline being better.
    """

    auroc: OverSeeds
    best: OverSeeds
    level: dict[int, float]
    is_own: Sequence[bool]

    @property
    def is_worse(self) -> bool:
        """Whether the cell for certain never reaches the baseline's quality."""
        return self.best.is_certain and self.best.mean.value > 0


@dataclass(frozen=True, eq=False)
class Frontier:
    """The cells of a sweep.

    Attributes:
        cells: By label.
        trainings: By label, then seed, ascending; without those that have no point yet.
        quality: Name of the series that quality is; lower = better.
        auroc, final_quality: By label, at the last audit; of cells with a training that has ended. Bounds of an AUROC are in
            [0, 1].
        compared: By label, without the baseline.
        dominated: By label, the cells that have both a lower AUROC and a better quality at the last audit.
        intervals: How they were made.
        left_out: Why runs are not in it, a sentence each.
    """

    cells: Mapping[str, Cell]
    trainings: Mapping[str, Mapping[int, Training]]
    quality: str
    auroc: Mapping[str, OverSeeds]
    final_quality: Mapping[str, OverSeeds]
    compared: Mapping[str, Compared]
    dominated: Mapping[str, Sequence[str]]
    intervals: Intervals
    left_out: Sequence[str] = ()

    @property
    def baseline(self) -> str:
        """Label of the cell that the others are compared with."""
        return baseline_of(self.cells)

    def ended(self, label: str) -> dict[int, Training]:
        """The trainings of a cell that have ended, by seed."""
        return _ended(self.trainings.get(label, {}))


def baseline_of(cells: Mapping[str, Cell]) -> str:
    """The label of the baseline; of the first cell where none is one."""
    return next((label for label, cell in cells.items() if cell.baseline), next(iter(cells)))


def frontier_of(
    cells: Mapping[str, Cell],
    trainings: Mapping[str, Sequence[Training]],
    quality: str,
    *,
    intervals: Intervals | None = None,
    left_out: Sequence[str] = (),
) -> Frontier:
    """Means, differences and dominated cells of what has been trained so far.

    Trainings that haven't ended are lines and nothing else. A difference is paired by sample within a seed (`drawn`); its
    deviation over the samples is that of the whole reading under resampling: which quality both reach, where each line first
    has it, and the AUROC there.

    Args:
        cells: By label.
        trainings: By label, in any order.
        quality: See `Frontier`.
        intervals: How they are made; `num_bootstrap` draws.
        left_out: See `Frontier`.

    Raises:
        UserError: Two trainings of a cell have the same seed, trainings of a seed have different splits, or trainings of two
            seeds the same.
    """
    intervals = intervals or Intervals()
    check_seeds(trainings)
    begun = {
        label: {each.seed: each for each in sorted(trainings[label], key=lambda each: each.seed)}
        for label in cells
        if trainings.get(label)
    }
    read = _Reading.of({label: found for label, each in begun.items() if (found := _ended(each))}, intervals)
    baseline, compared = baseline_of(cells), {}
    for label in read.lines:
        if label != baseline and read.shared(label, baseline):
            pairs = {seed: read.of_seed(seed, label, baseline) for seed in read.shared(label, baseline)}
            compared[label] = Compared(
                read.mean(_at_equal_quality, label, baseline),
                read.mean(lambda a, b: a.best - b.best, label, baseline),
                {seed: float(_level(*pair)) for seed, pair in pairs.items()},
                [bool(own.surely > others.surely) for own, others in pairs.values()],
            )
    return Frontier(
        cells,
        begun,
        quality,
        {label: read.mean(lambda line: line.auroc[..., -1], label).within(0.0, 1.0) for label in read.lines},
        {label: read.mean(lambda line: line.quality[..., -1], label) for label in read.lines},
        compared,
        _dominated(read, 1 - intervals.confidence),
        intervals,
        left_out,
    )


@dataclass(frozen=True)
class _Reading:
    """Lines of trainings, and draws of them: label -> seed -> line."""

    lines: Mapping[str, Mapping[int, Line]]
    draws: Mapping[str, Mapping[int, Line]]
    confidence: float

    @classmethod
    def of(cls, trainings: Mapping[str, Mapping[int, Training]], intervals: Intervals) -> "_Reading":
        lines = {label: {seed: each.line for seed, each in mine.items()} for label, mine in trainings.items()}
        draws: dict[str, dict[int, Line]] = {label: {} for label in trainings}
        for seed in {seed for mine in trainings.values() for seed in mine}:
            of_seed = {label: mine[seed] for label, mine in trainings.items() if seed in mine}
            for label, line in drawn(of_seed, intervals).items():
                draws[label][seed] = line
        return cls(lines, draws, intervals.confidence)

    def shared(self, *labels: str) -> list[int]:
        """The seeds that all of those cells have."""
        return sorted(set.intersection(*({*self.lines.get(label, ())} for label in labels)))

    def of_seed(self, seed: int, *labels: str) -> list[Line]:
        return [self.lines[label][seed] for label in labels]

    def mean(self, number: Callable[..., np.ndarray], *labels: str) -> OverSeeds:
        """Of a number of those cells' lines."""
        found = {
            seed: (
                float(number(*self.of_seed(seed, *labels))),
                float(number(*(self.draws[each][seed] for each in labels)).std()),
            )
            for seed in self.shared(*labels)
        }
        return over_seeds(found, confidence=self.confidence)


def _level(a: Line, b: Line) -> np.ndarray:
    """The best quality that both surely reach."""
    return np.maximum(a.surely, b.surely)


def _at_equal_quality(a: Line, b: Line) -> np.ndarray:
    return a.at(_level(a, b)) - b.at(_level(a, b))


def _dominated(read: _Reading, alpha: float) -> dict[str, list[str]]:
    """By cell, those that are surely lower in AUROC and better in quality at the last audit.

    For each ordered pair of cells, the larger of two one-sided p-values of the mean over their seeds, over the samples alone,
    paired; 1 where a difference has another sign in a seed. Holm over all pairs.
    """
    pairs = [pair for pair in permutations(read.lines, 2) if read.shared(*pair)]
    p_values = []
    for pair in pairs:
        gaps = [
            read.mean(lambda a, b: a.auroc[..., -1] - b.auroc[..., -1], *pair),
            read.mean(lambda a, b: a.quality[..., -1] - b.quality[..., -1], *pair),
        ]
        agree = all(gap.range[0] > 0 and gap.error > 0 for gap in gaps)
        p_values.append(max(float(stats.norm.sf(gap.samples.value / gap.error)) for gap in gaps) if agree else 1.0)
    found: dict[str, list[str]] = {}
    for (label, other), p_value in zip(pairs, holm(p_values)):
        if p_value <= alpha:
            found.setdefault(label, []).append(other)
    return found


def _ended(trainings: Mapping[int, Training]) -> dict[int, Training]:
    return {seed: each for seed, each in trainings.items() if each.has_ended}


def check_seeds(trainings: Mapping[str, Sequence[Training]]) -> None:
    """Raise UserError where a cell has two trainings of a seed, or other than one split a seed."""
    first: dict[int, tuple[str, Training]] = {}
    for label, mine in trainings.items():
        for place, training in enumerate(mine):
            twin = next((each for each in mine[:place] if each.seed == training.seed), None)
            if twin is not None:
                raise UserError(
                    f"{label}: {twin.name} and {training.name} both have seed {training.seed}; a cell has one training a seed."
                )
            other, known = first.setdefault(training.seed, (label, training))
            if known.split_hash != training.split_hash:
                raise UserError(
                    f"seed {training.seed}: {training.name} ({label}) is of another split than {known.name} ({other}) (split "
                    f"{training.split_hash[:12]}, not {known.split_hash[:12]}): trainings of a seed are compared sample by "
                    "sample. Train them with the same data.seed and counts."
                )
    seed_of: dict[str, tuple[int, Training]] = {}
    for seed, (_, training) in first.items():
        other_seed, known = seed_of.setdefault(training.split_hash, (seed, training))
        if other_seed != seed:
            raise UserError(
                f"seeds {other_seed} and {seed}: {known.name} and {training.name} have the same split "
                f"({training.split_hash[:12]}), but means over seeds take their samples for independent. Train without "
                "data.seed, so that each seed has its own."
            )
