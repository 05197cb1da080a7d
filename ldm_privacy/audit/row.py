"""One attack with one mask: everything that is reported of it."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ldm_privacy.audit.scores import TUNED, AuditScores
from ldm_privacy.audit.sweep import Choice
from ldm_privacy.metrics import (
    MembershipMetrics,
    PairedDifference,
    RatesAtThreshold,
    auroc_difference,
    membership_metrics,
    threshold_at_fpr,
    tpr_at_threshold,
)
from ldm_privacy.types import AuditKey, Intervals


@dataclass(frozen=True)
class AuditRow:
    """One attack with one mask.

    Attributes:
        key: Attack and mask.
        keep_fraction: Share of the latent dimensions that the mask keeps; for `tuned`, chosen on the calibration half.
        timestep: Chosen by AUROC on the calibration half; None for attacks with one number for all timesteps.
        metrics: On the reporting half at that timestep.
        carried: For each target FPR, TPR and realised FPR at the threshold that has this FPR on the calibration half.
        oracle_timestep, oracle_keep_fraction, oracle_auroc: The best on the reporting half itself: optimistic, for
            comparison only.
        auroc_by_timestep: (timesteps,) on the reporting half.
        gains: AUROC of this row minus that of another on the same samples, by the other's label: masked rows against the
            unmasked attack, masks of largest influence also against the controls of the same size.
    """

    key: AuditKey
    keep_fraction: float
    timestep: int | None
    metrics: MembershipMetrics
    carried: tuple[RatesAtThreshold, ...]
    oracle_timestep: int | None
    oracle_keep_fraction: float
    oracle_auroc: float
    auroc_by_timestep: Tensor
    gains: dict[str, PairedDifference]

    def series(self) -> dict[str, float]:
        """The curves of this row, as logged at every audit."""
        prefix = f"memorization/{self.key}"
        values: dict[str, float] = {f"{prefix}/oracle_auroc": self.oracle_auroc}
        if self.timestep is not None:
            values[f"{prefix}/timestep"] = float(self.timestep)
        if self.key.mask == TUNED:
            values[f"{prefix}/keep_fraction"] = self.keep_fraction
        estimates = {
            "auroc": self.metrics.auroc,
            "asr": self.metrics.asr,
            **{f"tpr_at_{100 * each.target_fpr:g}fpr": each for each in self.metrics.tpr_at_fpr},
            **{f"gain_over_{other}": gain for other, gain in self.gains.items()},
        }
        for name, estimate in estimates.items():
            values |= estimate.series(f"{prefix}/{name}")
        return values


def row_of(
    key: AuditKey,
    data: AuditScores,
    choice: Choice,
    against: Mapping[str, Tensor],
    intervals: Intervals,
    target_fprs: tuple[float, ...],
) -> AuditRow:
    """The row of what was chosen; `against` holds (samples,) scores of others, each at its own timestep."""
    calibration, reporting = data.is_calibration, ~data.is_calibration
    is_member, group = data.is_member[reporting], data.group_of(reporting)
    options, score, labels = intervals.options(group), data.scores[key][choice.place], data.labels(key.attack)
    reported = score[reporting]
    thresholds = [float(threshold_at_fpr(score[calibration], data.is_member[calibration], fpr)) for fpr in target_fprs]
    return AuditRow(
        key,
        choice.keep_fraction,
        labels[choice.place],
        membership_metrics(reported, is_member, target_fprs=target_fprs, **options),
        tuple(tpr_at_threshold(reported, is_member, threshold, **options) for threshold in thresholds),
        labels[choice.oracle_place],
        choice.oracle_keep_fraction,
        choice.oracle_auroc,
        choice.by_timestep,
        {
            label: auroc_difference(reported, other[reporting], is_member, confidence=intervals.confidence, group=group)
            for label, other in against.items()
        },
    )


def rivals_of(key: AuditKey, data: AuditScores) -> list[AuditKey]:
    """What a masked row is compared with: the unmasked attack; for a claim also the controls of the same size."""
    kept = data.keep_fraction[key]
    if key.mask != TUNED and kept == 1.0:
        return []
    unmasked = data.unmasked(key.attack)
    found = [unmasked] if unmasked not in (None, key) else []
    if key.mask in data.controls or key.mask == TUNED:
        return found
    same_size = [
        other
        for other in data.scores
        if other.attack == key.attack and other.mask in data.controls and data.keep_fraction[other] == kept
    ]
    return found + same_size
