"""The keep-fraction sweep: masks of every size in the same denoiser passes, and the choice among them without peeking."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ldm_privacy.audit.samples import AuditedSamples
from ldm_privacy.geometry.masks import keep_ladder
from ldm_privacy.metrics import auroc, auroc_interval
from ldm_privacy.randomness import uniform
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
    """What the calibration half chose among keep fractions (of largest influence) and timesteps; the oracle's choice beside.

    Attributes:
        keep_fraction, timestep: Chosen; the timestep is None for attacks with one number for all.
        oracle_keep_fraction, oracle_timestep, oracle_auroc: The best on the reporting half itself: optimistic.
    """

    keep_fraction: float
    timestep: int | None
    oracle_keep_fraction: float
    oracle_timestep: int | None
    oracle_auroc: float


def ladder_masks(samples: AuditedSamples, keep_fractions: Sequence[float], *, seed: int) -> KeepMask:
    """Masks of all rankings and keep fractions, (rankings * fractions, batch, channels, height, width).

    The random ladder is the one that `KeepRandom` draws, so each fraction's mask contains the smaller ones'.
    """
    rankings = []
    for name in RANKINGS:
        if name == "random":
            value = uniform("mask", (seed, samples.sample_index), samples.latent.shape[1:], samples.latent.device)
        else:
            value = samples.ranking(name)
        rankings.append(keep_ladder(value, keep_fractions))
    return torch.cat(rankings)


def split_ladder(scores: Sequence[Tensor], keep_fractions: Sequence[float]) -> dict[tuple[str, float], Tensor]:
    """One entry per mask of `ladder_masks`, in its order, back into one per ranking and keep fraction."""
    keys = [(ranking, fraction) for ranking in RANKINGS for fraction in keep_fractions]
    return dict(zip(keys, scores, strict=True))


def sweep_points(
    scores: Mapping[tuple[str, float], Tensor],
    timesteps: Sequence[int],
    is_member: Tensor,
    is_calibration: Tensor,
    *,
    confidence: float,
    group: Tensor | None,
) -> list[SweepPoint]:
    """A point per ranking and keep fraction; `scores` (timesteps, samples) each, higher = member."""
    reporting = ~is_calibration
    labels: list[int] | list[None] = list(timesteps) or [None]
    points = []
    for (ranking, fraction), score in scores.items():
        place = choose(score, is_member, is_calibration)
        estimate = auroc_interval(
            score[place, reporting],
            is_member[reporting],
            confidence=confidence,
            group=None if group is None else group[reporting],
        )
        points.append(SweepPoint(ranking, fraction, labels[place], estimate))
    return points


def choose_fraction(
    scores: Mapping[float, Tensor], timesteps: Sequence[int], is_member: Tensor, is_calibration: Tensor
) -> Choice:
    """(keep fraction, timestep) of the highest AUROC on the calibration half; ties go to the larger fraction.

    Args:
        scores: Keep fraction -> (timesteps, samples).
        timesteps: Of the rows; empty for one number for all.
        is_member, is_calibration: (samples,) bool.
    """
    fractions = sorted(scores, reverse=True)
    stacked = torch.stack([scores[fraction] for fraction in fractions])
    labels: list[int] | list[None] = list(timesteps) or [None]
    areas = [auroc(stacked[:, :, half], is_member[half]) for half in (is_calibration, ~is_calibration)]
    (chosen, at), (best, best_at) = (divmod(int(area.argmax()), area.shape[1]) for area in areas)
    return Choice(fractions[chosen], labels[at], fractions[best], labels[best_at], float(areas[1].max()))


def choose(score: Tensor, is_member: Tensor, is_calibration: Tensor) -> int:
    """The row of `score` (timesteps, samples) with the highest AUROC on the calibration half; ties go to the first."""
    return int(auroc(score[:, is_calibration], is_member[is_calibration]).argmax())
