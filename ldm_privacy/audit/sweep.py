"""The keep-fraction sweep: masks of every size in the same denoiser passes, and the choice among them without peeking."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ldm_privacy.audit.samples import AuditedSamples
from ldm_privacy.audit.scores import AuditScores
from ldm_privacy.geometry.masks import KeepRandom, keep_ladder
from ldm_privacy.metrics import auroc, auroc_interval
from ldm_privacy.types import Estimate, KeepMask

RANKINGS = ("influence", "random", "deviation")
"""What a sweep orders dimensions by; the first is the claim, the others are its controls."""


@dataclass(frozen=True)
class SweepPoint:
    """One keep fraction of one ranking: AUROC of the reporting half at the timestep that the calibration half chose."""

    ranking: str
    keep_fraction: float
    timestep: int | None
    auroc: Estimate


@dataclass(frozen=True)
class Choice:
    """What the calibration half chose among keep fractions and timesteps, beside the best on the reporting half itself.

    Attributes:
        keep_fraction, place: Chosen; the place is that of the timestep.
        by_timestep: (timesteps,) AUROC of the reporting half at the chosen keep fraction.
        oracle_keep_fraction, oracle_place, oracle_auroc: The best on the reporting half: optimistic.
    """

    keep_fraction: float
    place: int
    by_timestep: Tensor
    oracle_keep_fraction: float
    oracle_place: int
    oracle_auroc: float


def choose(candidates: Mapping[float, Tensor], data: AuditScores) -> Choice:
    """(keep fraction, timestep) of the highest AUROC on the calibration half.

    Ties go to the larger fraction and the first timestep. `candidates`: keep fraction -> (timesteps, samples), higher = member.
    """
    fractions = sorted(candidates, reverse=True)
    stacked = torch.stack([candidates[fraction] for fraction in fractions])
    halves = data.is_calibration, ~data.is_calibration
    areas = [auroc(stacked[:, :, half], data.is_member[half]) for half in halves]
    (chosen, place), (best, best_place) = (divmod(int(area.argmax()), area.shape[1]) for area in areas)
    reported = areas[1]
    return Choice(fractions[chosen], place, reported[chosen], fractions[best], best_place, float(reported[best, best_place]))


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
    return dict(zip(keys, scores, strict=True))


def sweep_points(data: AuditScores, attack: str, confidence: float) -> list[SweepPoint]:
    """A point per ranking and keep fraction of that attack's sweep."""
    reporting, labels = ~data.is_calibration, data.labels(attack)
    points = []
    for (ranking, fraction), score in data.sweeps[attack].items():
        place = choose({fraction: score}, data).place
        group = data.group_of(reporting)
        area = auroc_interval(score[place, reporting], data.is_member[reporting], confidence=confidence, group=group)
        points.append(SweepPoint(ranking, fraction, labels[place], area))
    return points
