"""Label permutation: what the same choices of timestep and keep fraction give where scores know nothing of the labels."""

from dataclasses import dataclass

import torch
from scipy import stats
from torch import Tensor

from ldm_privacy.audit.report import AuditReport
from ldm_privacy.audit.scores import TUNED, is_alike
from ldm_privacy.audit.sweep import RANKINGS
from ldm_privacy.device import give_back
from ldm_privacy.metrics import NullBand, auroc_of_labels, null_band, permuted_labels
from ldm_privacy.randomness import derive_seed
from ldm_privacy.types import AuditKey


@dataclass(frozen=True)
class PermutedRow:
    """An audit row under permuted labels.

    Attributes:
        band: Of the reported AUROC, timestep and keep fraction chosen anew on each permuted half.
        p_normal: The band's p-value by the normal approximation to the permuted AUROCs: it can fall below
            1 / (permutations + 1), which a correction for many rows needs.
        oracle: Mean over permutations of the best AUROC on the permuted samples that report: what peeking claims of nothing.
    """

    band: NullBand
    p_normal: float
    oracle: float


def label_permutation(report: AuditReport, *, num_permutations: int = 200, seed: int = 0) -> dict[AuditKey, PermutedRow]:
    """Permute the labels within each half (whole groups where there are groups) and repeat choice and report.

    Repeated are the choices of timestep and keep fraction: each half chooses by its permuted labels for the other, which
    reports by its own. What was fitted on a half (DIME, calibrations) stays as the true labels had it, which the other half has
    no part in. But halves that fit for each other err alike where there is nothing to find, which fits that stay don't show: of
    their rows the distance of the permuted AUROCs from .5 is taken sqrt(2) times, as if both halves were one
    (`ldm_privacy.metrics.choice_reach`).

    The same permutations serve all rows. Cost: a ranking of each score row and a matrix product; no network passes.

    Args:
        report: Of an audit.
        num_permutations: The band's ends are its quantiles; the smallest p-value is 1 / (num_permutations + 1).
        seed: Of the permutations.
    """
    data = report.data
    halves = {True: data.is_calibration, False: ~data.is_calibration}
    labels = {
        first: permuted_labels(
            data.is_member[half],
            num_permutations=num_permutations,
            group=data.group_of(half),
            seed=derive_seed("permuted half", seed, int(not first)),
        ).double()
        for first, half in halves.items()
    }

    def permuted(score: Tensor, first: bool) -> Tensor:
        """(candidates, permutations) AUROCs of (candidates, samples) on one of the halves."""
        return auroc_of_labels(score[:, halves[first]], labels[first])

    found = {}
    for row in report.rows:
        candidates = [data.scores[row.key]]
        if row.key.mask == TUNED and row.key.attack in data.sweeps:
            sweep = data.sweeps[row.key.attack]
            candidates = [score for (ranking, _), score in sweep.items() if ranking == RANKINGS[0]]
        if all(map(is_alike, candidates)):
            score = torch.cat([each[0] for each in candidates])
            areas = {first: permuted(score, first) for first in halves}
            folds = [(areas[True], areas[False]), (areas[False], areas[True])][: len(data.folds)]
        else:
            by_fold = [torch.cat([each[number] for each in candidates]) for number in range(len(data.folds))]
            folds = [(permuted(score, not number), permuted(score, bool(number))) for number, score in enumerate(by_fold)]
        reported = torch.stack([reports.gather(0, chooses.argmax(0, keepdim=True))[0] for chooses, reports in folds]).mean(0)
        if len(folds) == 2 and data.num_fitted.get(row.key):
            reported = (0.5 + 2**0.5 * (reported - 0.5)).clamp(0, 1)
        best = torch.stack([reports for _, reports in folds]).mean(0).amax(0)
        band = null_band(row.metrics.auroc.value, reported, report.confidence)
        p_normal = float(stats.norm.sf((row.metrics.auroc.value - reported.mean()) / max(float(reported.std()), 1e-12)))
        found[row.key] = PermutedRow(band, p_normal, float(best.mean()))
        give_back()
    return found
