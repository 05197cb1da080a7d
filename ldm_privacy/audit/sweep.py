"""The keep-fraction sweep: masks of every size in the same denoiser passes, and the choice among them without peeking."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ldm_privacy.audit.samples import AuditedSamples
from ldm_privacy.audit.scores import AuditScores, is_alike
from ldm_privacy.geometry.masks import KeepRandom, keep_ladder
from ldm_privacy.metrics import Half, auroc, crossfit_auroc
from ldm_privacy.types import Estimate, Intervals, KeepMask

RANKINGS = ("influence", "random", "deviation")
"""What a sweep orders dimensions by; the first is the claim, the others are its controls."""


@dataclass(frozen=True)
class SweepPoint:
    """One keep fraction of one ranking: AUROC where each half reports at the timestep that the other one chose."""

    ranking: str
    keep_fraction: float
    timesteps: tuple[int | None, ...]
    auroc: Estimate


@dataclass(frozen=True)
class Choice:
    """What each half chose for the other among keep fractions and timesteps, beside the best on the reported samples.

    Attributes:
        keep_fractions, places: By fold; places are those of the timesteps.
        indices: By fold, of what was chosen among all candidates: timesteps of the largest keep fraction first.
        areas: (folds, candidates) AUROCs where the folds report.
        by_timestep: (timesteps,) AUROC of the reported samples at the chosen keep fraction, mean over the folds.
        oracle_keep_fraction, oracle_place, oracle_auroc: The best mean over the folds where they report: optimistic.
    """

    keep_fractions: tuple[float, ...]
    places: tuple[int, ...]
    indices: tuple[int, ...]
    areas: Tensor
    by_timestep: Tensor
    oracle_keep_fraction: float
    oracle_place: int
    oracle_auroc: float

    def of(self, candidates: Mapping[float, Tensor]) -> Tensor:
        """(folds, timesteps, samples) at the chosen keep fractions."""
        if len(set(self.keep_fractions)) == 1:
            return candidates[self.keep_fractions[0]]
        return torch.stack([candidates[fraction][fold] for fold, fraction in enumerate(self.keep_fractions)])


class Areas:
    """AUROCs of the scores of an audit on both halves, of each tensor computed once: a sweep's are asked for several times."""

    def __init__(self, data: AuditScores):
        self._data = data
        self._known: dict[int, tuple[Tensor, Tensor, Tensor]] = {}

    def __call__(self, score: Tensor) -> tuple[Tensor, Tensor]:
        """(folds, timesteps) of the half that chooses and of the one that reports; `score`: (folds, timesteps, samples)."""
        if id(score) not in self._known:
            self._known[id(score)] = (score, *_areas(score, self._data))
        return self._known[id(score)][1:]

    def by_fold(self, scores: Sequence[Tensor]) -> Tensor:
        """(folds, timesteps, samples), of each fold that of one of those tensors; its AUROCs are theirs."""
        if len({id(score) for score in scores}) == 1:
            return scores[0]
        joined = torch.stack([score[fold] for fold, score in enumerate(scores)])
        chosen, reported = (torch.stack([self(score)[of][fold] for fold, score in enumerate(scores)]) for of in range(2))
        self._known[id(joined)] = (joined, chosen, reported)
        return joined


def choose(candidates: Mapping[float, Tensor], data: AuditScores, areas: Areas | None = None) -> Choice:
    """(keep fraction, timestep) of the highest AUROC on each half that chooses.

    Ties go to the larger fraction and the first timestep. `candidates`: keep fraction -> (folds, timesteps, samples), higher =
    member. `areas`: what is known of them already.
    """
    areas = areas or Areas(data)
    fractions = sorted(candidates, reverse=True)
    # (keep fractions, folds, timesteps) each
    chosen, reported = (torch.stack(each) for each in zip(*(areas(candidates[fraction]) for fraction in fractions)))
    num_timesteps, folds = chosen.shape[-1], range(chosen.shape[1])
    indices = tuple(int(chosen[:, fold].argmax()) for fold in folds)
    best = [divmod(index, num_timesteps) for index in indices]
    mean = reported.mean(1)
    oracle, place = divmod(int(mean.argmax()), num_timesteps)
    return Choice(
        tuple(fractions[row] for row, _ in best),
        tuple(column for _, column in best),
        indices,
        reported.transpose(0, 1).flatten(1),
        torch.stack([reported[best[fold][0], fold] for fold in folds]).mean(0),
        fractions[oracle],
        place,
        float(mean[oracle, place]),
    )


def _areas(score: Tensor, data: AuditScores) -> tuple[Tensor, Tensor]:
    """AUROCs of the half that chooses and of the one that reports, each (folds, timesteps)."""
    halves = [data.is_calibration, ~data.is_calibration]
    if is_alike(score):
        both = torch.stack([auroc(score[0][:, half], data.is_member[half]) for half in halves])
        return both[: len(score)], both.flip(0)[: len(score)]
    areas = [[auroc(each[:, half], data.is_member[half]) for half in fold] for each, fold in zip(score, data.folds)]
    chosen, reported = zip(*areas)
    return torch.stack(chosen), torch.stack(reported)


def reported_halves(
    candidates: Mapping[float, Tensor], choice: Choice, data: AuditScores, *, num_fitted: int = 0
) -> list[Half]:
    """What each fold reports: all candidates, in the order of `Choice.indices`, of its reporting half."""
    ordered = [candidates[fraction] for fraction in sorted(candidates, reverse=True)]
    return [
        Half(
            torch.cat([each[number][:, fold.reports] for each in ordered]),
            data.is_member[fold.reports],
            chosen=choice.indices[number],
            num_fitted=num_fitted,
            group=data.group_of(fold.reports),
            area=choice.areas[number],
        )
        for number, fold in enumerate(data.folds)
    ]


def ladder_masks(samples: AuditedSamples, keep_fractions: Sequence[float], *, seed: int) -> KeepMask:
    """Masks of all rankings and keep fractions, (rankings * fractions, batch, channels, height, width).

    The random ladder is the one that `KeepRandom` draws, so each fraction's mask contains the smaller ones'.
    """
    drawn = KeepRandom(seed=seed).order(samples.latent, samples.sample_index)
    values = [drawn if name == "random" else samples.ranking(name) for name in RANKINGS]
    return torch.cat([keep_ladder(value, keep_fractions) for value in values])


def split_ladder(scores: Sequence[Tensor], keep_fractions: Sequence[float]) -> dict[tuple[str, float], Tensor]:
    """One entry per mask of `ladder_masks`, in its order, back into one per ranking and keep fraction."""
    keys = [(ranking, fraction) for ranking in RANKINGS for fraction in keep_fractions]
    return dict(zip(keys, scores))


def sweep_points(data: AuditScores, attack: str, intervals: Intervals, areas: Areas | None = None) -> list[SweepPoint]:
    """A point per ranking and keep fraction of that attack's sweep."""
    labels = data.labels(attack)
    points = []
    for (ranking, fraction), score in data.sweeps[attack].items():
        choice = choose({fraction: score}, data, areas)
        area = crossfit_auroc(reported_halves({fraction: score}, choice, data), **vars(intervals))
        points.append(SweepPoint(ranking, fraction, tuple(labels[place] for place in choice.places), area))
    return points
