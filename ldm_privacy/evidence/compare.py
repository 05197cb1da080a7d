"""Several audits side by side: one table, paired differences where they share a split, the spread over trainings."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from ldm_privacy.audit.report import AuditReport, report_of
from ldm_privacy.audit.score_file import ScoreFile
from ldm_privacy.errors import UserError
from ldm_privacy.metrics import PairedDifference, crossfit_difference
from ldm_privacy.types import AuditKey, Estimate, Intervals


@dataclass(frozen=True)
class Spread:
    """AUROC over several audits; the standard deviation is of the sample, of the randomness between trainings."""

    mean: float
    deviation: float
    lowest: float
    highest: float
    count: int


@dataclass(frozen=True)
class Comparison:
    """Audits of one split.

    Attributes:
        reports: By name, in the order given; the first is what the others are compared with.
        keys: Attacks and masks that all of them have.
        differences: By name (without the first) and key: AUROC of that audit minus the first's, on the same samples.
        spread: By key.
        num_shared: Reported samples that all audits have.
    """

    reports: dict[str, AuditReport]
    keys: list[AuditKey]
    differences: dict[str, dict[AuditKey, PairedDifference]]
    spread: dict[AuditKey, Spread]
    num_shared: int

    @property
    def curve(self) -> dict[AuditKey, list[Estimate]]:
        """AUROC over the audits, in the order given, of the primary attack (the first that is calibrated, or the first) and of
        each of its calibrated forms."""
        derived = next(iter(self.reports.values())).data.derived
        made = [key for key in self.keys if key in derived and derived[key].plain in self.keys]
        primary = derived[made[0]].plain if made else self.keys[0]
        shown = [primary, *(key for key in made if derived[key].plain == primary)]
        return {key: [report.row(key).metrics.auroc for report in self.reports.values()] for key in shown}


def check_one_split(split_hashes: Mapping[str, str]) -> None:
    """Raise UserError, with both hashes, where one of the named audits is of another split than the first."""
    first_name, first = next(iter(split_hashes.items()))
    for name, split_hash in split_hashes.items():
        if split_hash != first:
            raise UserError(
                f"{name} is of another split than {first_name} (split {split_hash[:12]}, not {first[:12]}): their samples "
                "can't be compared. Train with the same data.seed, data.index_file and counts."
            )


def compare(files: Mapping[str, ScoreFile], *, intervals: Intervals | None = None) -> Comparison:
    """Reports of the score files, their paired differences from the first, and their spread.

    A paired difference holds the samples fixed and is blind to the randomness of training; the spread shows it, where the
    audits are of several seeds. No network passes.

    Args:
        files: By name, at least two.
        intervals: How they are made.

    Raises:
        UserError: Fewer than two; they are of different splits (both hashes are named), share no attack and mask, or share
            too few samples.
    """
    if len(files) < 2:
        raise UserError("a comparison needs two score files or checkpoints at least.")
    check_one_split({name: file.split_hash for name, file in files.items()})
    first_name = next(iter(files))
    reports = {name: report_of(file.data, intervals=intervals or Intervals()) for name, file in files.items()}
    keys = [row.key for row in reports[first_name].rows if all(row.key in file.data.scores for file in files.values())]
    if not keys:
        raise UserError("the audits have no attack and mask in common: audit them with the same audit.attacks and audit.masks.")
    reported = [report.data.sample_index[report.is_reporting] for report in reports.values()]
    shared = reported[0]
    for index in reported[1:]:
        shared = shared[torch.isin(shared, index)]
    if len(shared) < 4:
        raise UserError("the audits share fewer than four reported samples: audit them with the same audit.max_samples.")
    # Each audit's own choice of timestep, on the samples that all audits report.
    first = reports[first_name]
    differences = {
        name: {
            key: crossfit_difference(
                report.halves_among(key, shared), first.halves_among(key, shared), confidence=first.confidence
            )
            for key in keys
        }
        for name, report in reports.items()
        if name != first_name
    }
    areas = {key: [report.row(key).metrics.auroc.value for report in reports.values()] for key in keys}
    spread = {
        key: Spread(float(np.mean(each)), float(np.std(each, ddof=1)), min(each), max(each), len(each))
        for key, each in areas.items()
    }
    return Comparison(reports, keys, differences, spread, len(shared))
