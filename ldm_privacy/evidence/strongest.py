"""The strongest attack of an audit: attack, mask, timestep and calibration, all chosen on each half for the other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import special, stats
from torch import Tensor

from ldm_privacy.audit.kept import KeptScores
from ldm_privacy.audit.row import carried_rates
from ldm_privacy.audit.samples import check_halves
from ldm_privacy.audit.scores import AuditScores
from ldm_privacy.audit.sweep import choose, reported_halves
from ldm_privacy.metrics import Half, crossfit_auroc
from ldm_privacy.types import AuditKey, Estimate, Intervals

ANY = AuditKey("any", "any")
"""All candidates under one name."""


@dataclass(frozen=True, eq=False)
class Strongest:
    """What the strongest attack of an audit reaches, and how that number errs with the samples.

    Attributes:
        auroc: Mean over the halves that report; its interval carries the choice (`crossfit_auroc`).
        tpr: Share of members found at the threshold that has a false-positive rate of 1 % on the half that chose.
        chosen: By half, what the other one chose: "sima/top60 at 100".
        sample_index: (samples,), ascending.
        error: (samples,) float64: with sample i counted n_i times instead of once, the AUROC is off by `sum (n_i - 1) error_i`
            (DeLong's placements, to first order). Over the units (samples, or groups' sums) their squares sum to the variance
            that the interval says, which so is that of the AUROC when units are drawn anew.
        unseen: Standard deviation of what the samples don't show, as where every member lies above all held-out samples.
    """

    auroc: Estimate
    tpr: Estimate
    chosen: tuple[str, ...]
    sample_index: Tensor
    error: Tensor
    unseen: float


def strongest(
    kept: KeptScores,
    is_member: Tensor,
    is_calibration: Tensor,
    *,
    group: Tensor | None = None,
    cross_fit: bool = True,
    intervals: Intervals | None = None,
) -> Strongest:
    """Choose among all attacks x masks x timesteps and what was made of them, on each half for the other.

    A calibrated score chooses by what its own half fitted and reports on the other, like any other number of an audit.

    Args:
        kept: The scores of an audit.
        is_member, is_calibration, group: (samples,), in the order of `kept.sample_index`, which may be any.
        cross_fit: Each half chooses for the other; or the calibration half chooses and the other one reports.
        intervals: How they are made.

    Returns:
        The same for any order of samples. O(candidates samples log samples). Errors: those of `report_of`.
    """
    intervals = intervals or Intervals()
    order = kept.sample_index.argsort()
    scores = {**kept.scores, **kept.made}
    every = torch.cat([score[..., order].expand(2, -1, -1) for score in scores.values()], dim=1)[: 1 + cross_fit]
    data = AuditScores(
        kept.sample_index[order],
        is_member[order],
        is_calibration[order],
        None if group is None else group[order],
        {ANY.attack: []},
        {ANY: every},
        {ANY: 1.0},
    )
    check_halves(data.is_calibration, data.is_member, data.group)
    names, numbers = _candidates(scores, kept.timesteps, kept.num_fitted)
    choice = choose({1.0: every}, data)
    halves = reported_halves({1.0: every}, choice, data, num_fitted=max(numbers[place] for place in choice.places))
    auroc = crossfit_auroc(halves, **vars(intervals))
    error, unseen = _errors(halves, [fold.reports for fold in data.folds], auroc, intervals.confidence)
    rates = carried_rates(every, choice.places, data, 0.01, intervals)
    return Strongest(auroc, rates.tpr, tuple(names[place] for place in choice.places), data.sample_index, error, unseen)


def _candidates(
    scores: Mapping[AuditKey, Tensor], timesteps: Mapping[str, Sequence[int]], num_fitted: Mapping[AuditKey, int]
) -> tuple[list[str], list[int]]:
    """What each candidate is called, and how many numbers were fitted for it."""
    names, numbers = [], []
    for key, score in scores.items():
        at = [f" at {timestep}" for timestep in timesteps.get(key.attack, ())] or [""] * score.shape[1]
        names += [f"{key}{each}" for each in at]
        numbers += [num_fitted.get(key, 0)] * len(at)
    return names, numbers


def _errors(halves: Sequence[Half], reports: Sequence[Tensor], auroc: Estimate, confidence: float) -> tuple[Tensor, float]:
    """`Strongest.error` and `unseen`: DeLong's errors, stretched to the width of the interval; what has none is unseen."""
    error, variance = torch.zeros(reports[0].shape, dtype=torch.float64), 0.0
    for half, rows in zip(halves, reports):
        mine = torch.zeros(int(rows.sum()), dtype=torch.float64)
        for on_side, side, placed in zip((half.is_member, ~half.is_member), half.sides, half.placed):
            mine[on_side] = torch.from_numpy(placed - placed.mean()) / (len(placed) * len(halves))
            if side.num_units > 1:  # without the k / (k - 1) of an estimate, which k units drawn anew don't have
                variance += side.mean_variance(placed) * (1 - 1 / side.num_units) / len(halves) ** 2
        error[rows] = mine
    quantile = stats.norm.isf((1 - confidence) / 2)
    if not variance:
        return error, float((auroc.upper - auroc.lower) / (2 * quantile))
    logit = special.logit(np.array([auroc.lower, auroc.upper]).clip(1e-6, 1 - 1e-6))
    deviation = (logit[1] - logit[0]) / (2 * quantile) * auroc.value * (1 - auroc.value)
    return error * float(deviation / variance**0.5), 0.0
