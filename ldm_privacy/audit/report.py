"""From membership scores to the numbers that are reported: the choice on one half, everything else on the other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ldm_privacy.audit.samples import SampleTable, check_halves
from ldm_privacy.audit.sweep import Choice, SweepPoint, choose, choose_fraction, sweep_points
from ldm_privacy.errors import UserError
from ldm_privacy.metrics import (
    MembershipMetrics,
    PairedDifference,
    QuartileAuroc,
    RatesAtThreshold,
    auroc,
    auroc_by_quartile,
    auroc_difference,
    membership_metrics,
    threshold_at_fpr,
    tpr_at_threshold,
)
from ldm_privacy.types import AuditKey

TUNED = "tuned"
"""Mask label of the keep fraction that the calibration half chose."""


@dataclass(frozen=True)
class AuditScores:
    """Membership scores of an audit. All samples are in ascending order of sample index.

    Attributes:
        sample_index, is_member, is_calibration: (samples,).
        group: (samples,) group numbers, or None.
        timesteps: Per attack, the timesteps of its scores; empty for attacks with one number for all.
        scores: (timesteps, samples) per attack and mask, higher = member.
        keep_fraction: Of each attack and mask.
        controls: Labels of the masks that a mask of largest influence must beat.
        sweeps: Per attack, scores by (ranking, keep fraction); empty where there is no sweep.
        coefficients: Of the combined attack, as series; log-odds per standard deviation of a statistic.
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
    coefficients: dict[str, float] = field(default_factory=dict)

    def unmasked(self, attack: str) -> AuditKey | None:
        """The first key of that attack whose mask keeps everything."""
        return next((key for key, kept in self.keep_fraction.items() if key.attack == attack and kept == 1.0), None)


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
            values[f"{prefix}/{name}"] = estimate.value
            values[f"{prefix}/{name}_lower"] = estimate.lower
            values[f"{prefix}/{name}_upper"] = estimate.upper
        return values


@dataclass(frozen=True)
class AuditReport:
    """What an audit found: its scores, a row per attack and mask, the keep-fraction curves.

    Attributes:
        data: The scores, in ascending order of sample index.
        rows: In the order of the config; an attack's `tuned` row comes last.
        sweep: Per attack, the AUROC by ranking and keep fraction.
        confidence: Of all intervals.
        target_fprs: Of the rows' TPRs.
    """

    data: AuditScores
    rows: list[AuditRow]
    sweep: dict[str, list[SweepPoint]]
    confidence: float
    target_fprs: tuple[float, ...]

    def row(self, key: AuditKey) -> AuditRow:
        """The row of that attack and mask."""
        return next(row for row in self.rows if row.key == key)

    def scores_at(self, key: AuditKey) -> Tensor:
        """(samples,) scores of all audited samples at the chosen timestep, ascending by sample index."""
        timestep = self.row(key).timestep
        place = 0 if timestep is None else self.data.timesteps[key.attack].index(timestep)
        return self.data.scores[key][place]

    def reported_scores(self, key: AuditKey) -> Tensor:
        """`scores_at` of the reporting half."""
        return self.scores_at(key)[self.is_reporting]

    def is_constant(self, key: AuditKey) -> bool:
        """Whether all samples have the same score: an attack that ranks nobody; its AUROC is .5 by ties."""
        score = self.scores_at(key)
        return bool(score.min() == score.max())

    @property
    def is_reporting(self) -> Tensor:
        """(samples,) bool: not of the calibration half."""
        return ~self.data.is_calibration

    @property
    def reported_membership(self) -> Tensor:
        """is_member of the reporting half, ascending by sample index."""
        return self.data.is_member[self.is_reporting]

    @property
    def reported_group(self) -> Tensor | None:
        """Groups of the reporting half, ascending by sample index."""
        return None if self.data.group is None else self.data.group[self.is_reporting]

    def quartiles(self, key: AuditKey, distortion: SampleTable) -> QuartileAuroc:
        """AUROC of the reporting half by timestep and quartile of local distortion, over the samples that have one."""
        data = self.data
        chosen = self.is_reporting & torch.isin(data.sample_index, distortion.sample_index)
        group = None if data.group is None else data.group[chosen]
        value = distortion[data.sample_index[chosen]]
        return auroc_by_quartile(
            data.scores[key][:, chosen], data.is_member[chosen], value, confidence=self.confidence, group=group
        )

    def series(self) -> dict[str, float]:
        """All curves: name -> value."""
        return {name: value for row in self.rows for name, value in row.series().items()}


def report_of(
    data: AuditScores,
    *,
    confidence: float = 0.95,
    target_fprs: Sequence[float] = (0.01, 0.001),
    num_bootstrap: int = 1000,
    seed: int = 0,
) -> AuditReport:
    """The report of membership scores; a pure function of them, no network passes.

    Args:
        data: Scores, with sweeps where there are any: each attack that has one gets a `tuned` row.
        confidence, num_bootstrap, seed: Of the intervals.
        target_fprs: Of TPR@FPR.

    Raises:
        UserError: Members or held-out samples are missing from one of the halves, or a score is not finite.
    """
    check_halves(data.is_calibration, data.is_member)
    for key, score in data.scores.items():
        if not (finite := score.isfinite().all(0)).all():
            sample = int(data.sample_index[~finite][0])
            raise UserError(f"{key}: the score of sample {sample} is not finite; take the sample out, or mend the attack.")
    choices, rivals = {}, {}
    for attack, sweep in data.sweeps.items():
        key = AuditKey(attack, TUNED)
        by_fraction = {fraction: score for (ranking, fraction), score in sweep.items() if ranking == "influence"}
        choice = choose_fraction(by_fraction, data.timesteps[attack], data.is_member, data.is_calibration)
        choices[key] = choice
        rivals[key] = {
            ranking: score
            for (ranking, fraction), score in sweep.items()
            if ranking != "influence" and fraction == choice.keep_fraction
        }
        data = replace(
            data,
            scores={**data.scores, key: by_fraction[choice.keep_fraction]},
            keep_fraction={**data.keep_fraction, key: choice.keep_fraction},
        )
    rows = []
    for key in _ordered(data.scores):
        against = {other.mask: data.scores[other] for other in _rivals(key, data)} | rivals.get(key, {})
        rows.append(_row(key, data, against, choices.get(key), confidence, tuple(target_fprs), num_bootstrap, seed))
    group = data.group
    points = {
        attack: sweep_points(
            sweep, data.timesteps[attack], data.is_member, data.is_calibration, confidence=confidence, group=group
        )
        for attack, sweep in data.sweeps.items()
    }
    return AuditReport(data, rows, points, confidence, tuple(target_fprs))


def _row(
    key: AuditKey,
    data: AuditScores,
    against: Mapping[str, Tensor],
    choice: Choice | None,
    confidence: float,
    target_fprs: tuple[float, ...],
    num_bootstrap: int,
    seed: int,
) -> AuditRow:
    calibration, reporting = data.is_calibration, ~data.is_calibration
    is_member, group = data.is_member[reporting], None if data.group is None else data.group[reporting]
    score = data.scores[key]
    place = choose(score, data.is_member, calibration)
    chosen = score[place]
    by_timestep = auroc(score[:, reporting], is_member)
    metrics = membership_metrics(
        chosen[reporting],
        is_member,
        confidence=confidence,
        group=group,
        num_bootstrap=num_bootstrap,
        seed=seed,
        target_fprs=target_fprs,
    )
    thresholds = [float(threshold_at_fpr(chosen[calibration], data.is_member[calibration], fpr)) for fpr in target_fprs]
    carried = tuple(
        tpr_at_threshold(
            chosen[reporting], is_member, threshold, confidence=confidence, group=group, num_bootstrap=num_bootstrap, seed=seed
        )
        for threshold in thresholds
    )
    gains = {}
    for label, other in against.items():
        rival = other[choose(other, data.is_member, calibration)]
        gains[label] = auroc_difference(chosen[reporting], rival[reporting], is_member, confidence=confidence, group=group)
    labels: list[int] | list[None] = data.timesteps[key.attack] or [None]
    best = int(by_timestep.argmax())
    kept = data.keep_fraction[key]
    oracle = (labels[best], kept, float(by_timestep[best]))
    if choice is not None:
        oracle = (choice.oracle_timestep, choice.oracle_keep_fraction, choice.oracle_auroc)
    return AuditRow(key, kept, labels[place], metrics, carried, *oracle, by_timestep, gains)


def _rivals(key: AuditKey, data: AuditScores) -> list[AuditKey]:
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


def _ordered(keys: Mapping[AuditKey, Tensor]) -> list[AuditKey]:
    """By attack, in the order in which attacks first appear; `tuned` after the attack's other masks."""
    attacks = list(dict.fromkeys(key.attack for key in keys))
    return sorted(keys, key=lambda key: (attacks.index(key.attack), key.mask == TUNED))
