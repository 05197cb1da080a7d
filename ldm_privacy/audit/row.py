"""One attack with one mask: everything that is reported of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from ldm_privacy.audit.scores import TUNED, AuditScores
from ldm_privacy.audit.sweep import Choice
from ldm_privacy.metrics import (
    CrossfitRates,
    EpsilonBound,
    Half,
    MembershipMetrics,
    PairedDifference,
    crossfit_auroc,
    crossfit_difference,
    crossfit_epsilon,
    crossfit_rates,
    membership_metrics,
    threshold_at_fpr,
)
from ldm_privacy.types import AuditKey, Estimate, Intervals

PLAIN = "plain"
"""Label of a calibrated score's gain over the attack that it is made of."""

OWN = "own"
"""Label of what an attack gains under another condition over the same under the own one."""

GROUPS = ("repeated", "single")
"""Members that come more often in an epoch of the training, and the others."""


@dataclass(frozen=True)
class AuditRow:
    """One attack with one mask. What is fitted or chosen with a sample never serves to report it.

    Attributes:
        key: Attack and mask.
        keep_fractions: Share of the latent dimensions that the mask keeps, by fold; for `tuned`, chosen.
        timesteps: By fold, chosen by AUROC on the half that chooses; None for attacks with one number for all timesteps.
        metrics: AUROC: the mean over the halves that report. The others are of each reported sample's `standing`.
        carried: For each target FPR, TPR and realised FPR at the thresholds that have this FPR on the halves that choose.
        oracle_timestep, oracle_keep_fraction, oracle_auroc: The best on the reported samples themselves: optimistic, for
            comparison only.
        auroc_by_timestep: (timesteps,) on the reported samples.
        gains: AUROC of this row minus that of another on the same samples, by the other's label: masked rows against the
            unmasked attack, masks of largest influence also against the controls of the same size, calibrated scores against
            the plain attack (`PLAIN`), attacks under another condition against the same under the own one (`OWN`).
        sigmas: Of a flow, the share of noise at each timestep of the audit; otherwise {}.
        by_repeats: AUROC of the members that come more often in training ("repeated") and of the others ("single"), each
            against all held-out samples; empty where none are repeated.
        epsilon: The least that it is, where coins decided who is a member; None otherwise.
    """

    key: AuditKey
    keep_fractions: tuple[float, ...]
    timesteps: tuple[int | None, ...]
    metrics: MembershipMetrics
    carried: tuple[CrossfitRates, ...]
    oracle_timestep: int | None
    oracle_keep_fraction: float
    oracle_auroc: float
    auroc_by_timestep: Tensor
    gains: dict[str, PairedDifference]
    sigmas: dict[int, float]
    by_repeats: dict[str, Estimate]
    epsilon: EpsilonBound | None = None

    @property
    def keep_fraction(self) -> float:
        """Mean over the folds."""
        return sum(self.keep_fractions) / len(self.keep_fractions)

    @property
    def timestep(self) -> str:
        """The chosen timesteps in words: "100", "60 and 100", or "-" for an attack without."""
        return " and ".join(map(str, dict.fromkeys(self.timesteps))) if None not in self.timesteps else "-"

    @property
    def sigma(self) -> str:
        """As `timestep`, of a flow the share of noise there: ".3", ".3 and .4"; "-" for an attack without, "" for no flow."""
        chosen = dict.fromkeys(named_sigma(self.sigmas[each]) for each in self.timesteps if each in self.sigmas)
        return " and ".join(chosen) or ("-" if self.sigmas else "")

    def series(self) -> dict[str, float]:
        """The curves of this row, as logged at every audit; of timestep and keep fraction the mean over the folds."""
        prefix = f"memorization/{self.key}"
        values: dict[str, float] = {f"{prefix}/oracle_auroc": self.oracle_auroc}
        chosen = [each for each in self.timesteps if each is not None]
        if chosen:
            values[f"{prefix}/timestep"] = sum(chosen) / len(chosen)
        if self.key.mask == TUNED:
            values[f"{prefix}/keep_fraction"] = self.keep_fraction
        if self.epsilon is not None:
            values[f"{prefix}/epsilon_lower"] = self.epsilon.value
        estimates = {
            "auroc": self.metrics.auroc,
            "asr": self.metrics.asr,
            **{f"tpr_at_{100 * each.target_fpr:g}fpr": each for each in self.metrics.tpr_at_fpr},
            **{f"gain_over_{other}": gain for other, gain in self.gains.items()},
            **{f"auroc_{group}": area for group, area in self.by_repeats.items()},
        }
        for name, estimate in estimates.items():
            values |= estimate.series(f"{prefix}/{name}")
        return values


def named_sigma(sigma: float) -> str:
    """A flow's share of noise in three digits after the point, without zeros around them: ".3", ".051"."""
    return f"{sigma:.3f}".strip("0")


def standing(score: Tensor, places: Sequence[int], data: AuditScores) -> Tensor:
    """(samples,) float64, each sample's score fitted and chosen without it, on a scale that the folds share.

    `(score - median) / interquartile range`, both of the held-out samples of the half that chose: an increasing map that the
    reported samples have no part in. With one fold the samples that choose have theirs from the same fold.

    `score`: (folds, timesteps, samples); `places`: of the chosen timesteps.
    """
    found = torch.empty(score.shape[-1], dtype=torch.float64)
    for fold, each, place in zip(data.folds, score, places):
        row = each[place].double()
        quarter, median, three_quarters = torch.quantile(
            row[fold.chooses & ~data.is_member], torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
        )
        spread = three_quarters - quarter
        scaled = (row - median) / (spread if spread > 0 else 1.0)
        rows = fold.reports if len(score) > 1 else slice(None)
        found[rows] = scaled[rows]
    return found


def row_of(
    key: AuditKey,
    data: AuditScores,
    choice: Choice,
    halves: Sequence[Half],
    against: Mapping[str, Sequence[Half]],
    intervals: Intervals,
    target_fprs: tuple[float, ...],
) -> AuditRow:
    """The row of what was chosen; `halves` are what it reports, `against` holds those of others."""
    score, labels = data.scores[key], data.labels(key.attack)
    mine, reporting = standing(score, choice.places, data), data.is_reporting
    options = intervals.options(data.group_of(reporting))
    metrics = membership_metrics(mine[reporting], data.is_member[reporting], target_fprs=target_fprs, **options)
    return AuditRow(
        key,
        choice.keep_fractions,
        tuple(labels[place] for place in choice.places),
        replace(metrics, auroc=crossfit_auroc(halves, **vars(intervals))),
        tuple(carried_rates(score, choice.places, data, target, intervals) for target in target_fprs),
        labels[choice.oracle_place],
        choice.oracle_keep_fraction,
        choice.oracle_auroc,
        choice.by_timestep,
        {label: crossfit_difference(halves, other, confidence=intervals.confidence) for label, other in against.items()},
        data.sigmas,
        _by_repeats(halves, data, intervals),
        crossfit_epsilon(_folds(score, choice.places, data), confidence=intervals.confidence) if data.by_coins else None,
    )


def _by_repeats(halves: Sequence[Half], data: AuditScores, intervals: Intervals) -> dict[str, Estimate]:
    if data.repeats is None:
        return {}
    found = {}
    for group, rows in zip(GROUPS, (data.repeats > 1, data.repeats == 1)):
        if all(int((rows & data.is_member & fold.reports).sum()) > 1 for fold in data.folds):
            mine = [half.among((rows | ~data.is_member)[fold.reports]) for half, fold in zip(halves, data.folds)]
            found[group] = crossfit_auroc(mine, **vars(intervals))
    return found


def paired(
    halves: Sequence[Half],
    other: Tensor,
    data: AuditScores,
    confidence: float,
    *,
    alternative: Literal["two-sided", "greater"] = "two-sided",
    num_fitted: int = 0,
    among: Tensor | None = None,
) -> PairedDifference:
    """AUROC of what halves report minus that of `other`, (samples,), mean over the halves.

    `among`: (samples,) bool, those to look at; all by default. `num_fitted`: of `other`, see `Half`.
    """
    mine, others = [], []
    for half, fold in zip(halves, data.folds):
        rows = fold.reports if among is None else fold.reports & among
        if rows.any():
            mine.append(half.among(rows[fold.reports]))
            others.append(Half(other[rows], data.is_member[rows], num_fitted=num_fitted, group=data.group_of(rows)))
    return crossfit_difference(mine, others, confidence=confidence, alternative=alternative)


def carried_rates(
    score: Tensor, places: Sequence[int], data: AuditScores, target_fpr: float, intervals: Intervals
) -> CrossfitRates:
    """TPR and realised FPR at the thresholds that have that FPR on the halves that choose; arguments as of `standing`."""
    folds = _folds(score, places, data)
    thresholds = [float(threshold_at_fpr(chooses.reported, chooses.is_member, target_fpr)) for chooses, _ in folds]
    return crossfit_rates([reports for _, reports in folds], thresholds, **vars(intervals))


def _folds(score: Tensor, places: Sequence[int], data: AuditScores) -> list[tuple[Half, Half]]:
    """Of each fold the half that chooses and the half that reports, both scored by what the former chose and fitted."""

    def half(row: Tensor, among: Tensor) -> Half:
        return Half(row[among], data.is_member[among], group=data.group_of(among))

    rows = [each[place] for each, place in zip(score, places)]
    return [(half(row, fold.chooses), half(row, fold.reports)) for row, fold in zip(rows, data.folds)]


def rivals_of(key: AuditKey, data: AuditScores) -> dict[str, AuditKey]:
    """What a row is compared with, by label: an attack under another condition with the same under the own one; a calibrated
    score with the plain attack; a masked one with the unmasked attack, and for a claim also with the controls of its size."""
    if (view := data.views.get(key.attack)) is not None:
        return {OWN: AuditKey(view.attack, key.mask)}
    if key in data.derived:
        return {PLAIN: data.derived[key].plain}
    kept = data.keep_fraction[key]
    if key.mask != TUNED and kept == 1.0:
        return {}
    unmasked = data.unmasked(key.attack)
    found = [unmasked] if unmasked not in (None, key) else []
    if key.mask not in data.controls and key.mask != TUNED:
        found += [
            other
            for other in data.scores
            if other.attack == key.attack and other.mask in data.controls and data.keep_fraction[other] == kept
        ]
    return {other.mask: other for other in found}
