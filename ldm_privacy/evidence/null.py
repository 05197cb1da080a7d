"""Label permutation: what the same choices of timestep and keep fraction give where scores know nothing of the labels."""

from dataclasses import dataclass

import torch
from scipy import stats

from ldm_privacy.audit.report import AuditReport
from ldm_privacy.audit.scores import TUNED
from ldm_privacy.metrics import NullBand, null_band, permuted_auroc
from ldm_privacy.randomness import derive_seed
from ldm_privacy.types import AuditKey


@dataclass(frozen=True)
class PermutedRow:
    """An audit row under permuted labels.

    Attributes:
        band: Of the reported AUROC, timestep and keep fraction chosen anew on each permuted calibration half.
        p_normal: The band's p-value by the normal approximation to the permuted AUROCs: it can fall below
            1 / (permutations + 1), which a correction for many rows needs.
        oracle: Mean over permutations of the best AUROC on the permuted reporting half: what peeking claims of nothing.
    """

    band: NullBand
    p_normal: float
    oracle: float


def label_permutation(report: AuditReport, *, num_permutations: int = 200, seed: int = 0) -> dict[AuditKey, PermutedRow]:
    """Permute the labels within each half (whole groups where there are groups) and repeat choice and report.

    Repeated are the choices of timestep and keep fraction; what an attack fitted on the calibration half (DIME, combined) stays
    as the true labels had it, which the reporting half has no part in.

    The same permutations serve all rows. Cost: a ranking of each score row and a matrix product; no network passes.

    Args:
        report: Of an audit.
        num_permutations: The band's ends are its quantiles; the smallest p-value is 1 / (num_permutations + 1).
        seed: Of the permutations.
    """
    data = report.data
    found = {}
    for row in report.rows:
        stacked = data.scores[row.key]
        if row.key.mask == TUNED and row.key.attack in data.sweeps:
            sweep = data.sweeps[row.key.attack]
            stacked = torch.cat([score for (ranking, _), score in sweep.items() if ranking == "influence"])
        calibration, reporting = (
            permuted_auroc(
                stacked[:, half],
                data.is_member[half],
                num_permutations=num_permutations,
                group=None if data.group is None else data.group[half],
                seed=derive_seed("permuted half", seed, offset),
            )
            for offset, half in enumerate((data.is_calibration, report.is_reporting))
        )
        reported = reporting.gather(0, calibration.argmax(0, keepdim=True))[0]
        band = null_band(row.metrics.auroc.value, reported, report.confidence)
        p_normal = float(stats.norm.sf((row.metrics.auroc.value - reported.mean()) / max(float(reported.std()), 1e-12)))
        found[row.key] = PermutedRow(band, p_normal, float(reporting.amax(0).mean()))
    return found
