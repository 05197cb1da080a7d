"""Calibrated scores of an audit: each calibration is fitted on the half that chooses, for the half that reports."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ldm_privacy.audit.kept import KeptScores
from ldm_privacy.audit.scores import AuditScores, Derived
from ldm_privacy.audit.sweep import choose
from ldm_privacy.calibrations.base import Calibration, Known, check_halves_suffice
from ldm_privacy.plugins import blamed_on
from ldm_privacy.types import AuditKey, check_shape

MOST_EARLIER = 16
"""Earlier audits that are looked at; of more, so many that are spread over them."""


def level(score: Tensor, log_scale: bool) -> Tensor:
    """Membership scores as a calibration compares them: minus the logarithm of a positive statistic, or the scores."""
    return -(-score).clamp(min=torch.finfo(score.dtype).tiny).log() if log_scale else score


def with_calibrated(
    data: AuditScores,
    calibrations: Sequence[tuple[AuditKey, Calibration, AuditKey]],
    log_scale: Mapping[str, bool],
    complexity: Tensor | None,
    history: Mapping[int, KeptScores],
) -> AuditScores:
    """The same with calibrated scores. No network passes.

    Args:
        data: The plain scores of the configured attacks and masks.
        calibrations: What its result is called, the calibration, the attack and mask that it wraps.
        log_scale: By attack.
        complexity: (samples,), where one needs it.
        history: Time -> the scores of that audit.

    Raises:
        UserError: A half is too small to fit on; an earlier audit lacks a sample; a score is not finite.
    """
    if not calibrations:
        return data
    check_halves_suffice(data.is_calibration, data.is_member, cross_fit=len(data.folds) > 1)
    plain = list(data.scores)
    wanted = {key for _, calibration, of in calibrations for key in [of, *calibration.attacks(of, plain)]}
    now = {key: level(data.scores[key].double(), log_scale[key.attack]) for key in plain if key in wanted}
    places = {key: choose({1.0: data.scores[key]}, data).places for key in now}
    earlier: list[list[dict[AuditKey, Tensor]]] = [[] for _ in data.folds]
    for time in sorted(history):
        kept = history[time].at(data.sample_index).scores
        for fold, found in enumerate(earlier):
            rows = {key: kept[key][min(fold, len(kept[key]) - 1), places[key][fold]] for key in now if key in kept}
            found.append({key: level(row, log_scale[key.attack]).double() for key, row in rows.items()})
    scores, timesteps, keep = dict(data.scores), dict(data.timesteps), dict(data.keep_fraction)
    derived, num_fitted, coefficients = dict(data.derived), dict(data.num_fitted), dict(data.coefficients)
    for key, calibration, of in calibrations:
        parts = []
        for number, fold in enumerate(data.folds):
            looked_at = set(calibration.attacks(of, list(now)))
            complete = [each for each in earlier[number] if looked_at <= each.keys()]
            known = Known(
                of,
                places[of][number],
                {each: score[number] for each, score in now.items()},
                {each: at[number] for each, at in places.items()},
                complete if calibration.needs_history else [],
                complexity,
                data.is_member,
                fold.chooses,
            )
            with blamed_on(calibration):
                found = calibration(known)
                num_timesteps = len(known.now[of]) if calibration.per_timestep else 1
                parts.append(check_shape("score", found.score, (num_timesteps, len(data.is_member))))
            coefficients |= {f"calibration/{key}/half{number + 1}/{name}": each for name, each in found.coefficients.items()}
            num_fitted[key] = max(num_fitted.get(key, 0), found.num_fitted, data.num_fitted.get(of, 0))
        scores[key], keep[key] = torch.stack(parts), data.keep_fraction[of]
        timesteps[key.attack] = data.timesteps[of.attack] if calibration.per_timestep else []
        derived[key] = Derived(of, calibration.needs_history)
    return replace(
        data,
        scores=scores,
        timesteps=timesteps,
        keep_fraction=keep,
        derived=derived,
        num_fitted={key: count for key, count in num_fitted.items() if count},
        coefficients=coefficients,
    )
