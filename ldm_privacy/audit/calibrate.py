"""Calibrated scores of an audit: each calibration is fitted on the half that chooses, for the half that reports."""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from ldm_privacy.audit.kept import KeptScores
from ldm_privacy.audit.scores import AuditScores, Derived
from ldm_privacy.audit.sweep import choose
from ldm_privacy.calibrations.base import Calibration, Known, check_halves_suffice
from ldm_privacy.errors import UserError
from ldm_privacy.plugins import blamed_on
from ldm_privacy.types import AuditKey, Whose, check_shape

MOST_EARLIER = 16
"""Earlier audits that are looked at; of more, so many that are spread over them."""


class Derivation(NamedTuple):
    """A calibrated score: what it is called, how it is made, of what (or what it is compared with), the calibration's label,
    and whose the reference is, should it need one."""

    key: AuditKey
    calibration: Calibration
    of: AuditKey
    label: str = ""
    whose: Whose = "outsider"

    @property
    def derived(self) -> Derived:
        """As scores remember it."""
        return Derived(self.of, self.calibration.needs_history, self.whose if self.calibration.needs_reference else "")


def derivations(
    calibrations: Mapping[str, Calibration], calibrated: Sequence[AuditKey], whose: Whose = "outsider"
) -> list[Derivation]:
    """Each calibration of each of those; one that wraps none is made once, with the first of them as its plain attack.

    `whose`: the reference is; "": there is none, and what needs one is left out.
    """
    return [
        Derivation(AuditKey(f"{key.attack}_{label}" if calibration.wraps else label, key.mask), calibration, key, label, whose)
        for label, calibration in calibrations.items()
        if whose or not calibration.needs_reference
        for key in (calibrated if calibration.wraps else calibrated[:1])
    ]


def check_derivations(found: Sequence[Derivation], plain: Sequence[AuditKey], *, has_complexity: bool) -> None:
    """Raise UserError for what is no attack of the audit, wrapped twice, called like an attack, or without complexity."""
    attacks = {key.attack for key in plain}
    for place, (key, calibration, of, label, _) in enumerate(found):
        if of not in plain:
            is_calibrated = of.attack in {f"{attack}_{each.label}" for attack in attacks for each in found}
            wrong = f"'{of}' is calibrated already" if is_calibrated else f"there is no '{of}'"
            raise UserError(f"audit.calibrated: {wrong}; name some of: {', '.join(map(str, plain))}.")
        if twin := next((each for each in found[:place] if each.key == key), None):
            if twin.label == label:
                raise UserError(f"audit.calibrated: '{of}' stands there twice, so '{key}' would be made twice; take one out.")
            raise UserError(
                f"audit.calibrations: '{twin.label}' and '{label}' would both be called '{key}'; give one another label."
            )
        if key.attack in attacks:
            raise UserError(f"audit.attacks: the label '{key.attack}' is taken by a calibrated score (audit.calibrations).")
        if not calibration.wraps and any(label.startswith(f"{attack}_") for attack in attacks):
            raise UserError(
                f"audit.calibrations: '{label}' wraps no attack, but is called as if it did; give it another label."
            )
        if calibration.needs_complexity and not has_complexity:
            raise UserError(
                f"audit.calibrations.{label}: the samples have no complexity; give them one, as in "
                "AuditedSamples(..., complexity=image_complexity(images))."
            )


def level(score: Tensor, log_scale: bool) -> Tensor:
    """Membership scores as a calibration compares them: the oriented logarithm of a positive statistic, or the scores."""
    if not log_scale:
        return score
    # The orientation is the sign of the score, of a zero too.
    return torch.ones_like(score).copysign(score) * score.abs().clamp(min=torch.finfo(score.dtype).tiny).log()


def known_to(found: Sequence[Derivation], keys: Iterable[AuditKey], views: Container[str]) -> list[AuditKey]:
    """The attacks and masks that calibrations may look at: under the samples' own conditions, and whatever they wrap.

    What an attack finds under another condition says why a member is found, and would crowd out what says whether.
    """
    wrapped = {each.of for each in found}
    return [key for key in keys if key.attack not in views or key in wrapped]


def with_calibrated(
    data: AuditScores,
    found: Sequence[Derivation],
    log_scale: Mapping[str, bool],
    complexity: Tensor | None,
    history: Mapping[int, KeptScores],
) -> AuditScores:
    """The same with calibrated scores. No network passes.

    Args:
        data: The plain scores of the configured attacks and masks.
        found: The calibrated scores to be made.
        log_scale: By attack.
        complexity: (samples,), where one needs it.
        history: Time -> the scores of that audit; one that lacks a sample is left out, and scores at other timesteps are.
            The reference's scores are `data.reference`.

    Raises:
        UserError: A half is too small to fit on; a score is not finite.
    """
    if not found:
        return data
    check_halves_suffice(data.is_calibration, data.is_member, cross_fit=len(data.folds) > 1)
    plain = known_to(found, data.scores, data.views)
    wanted = {key for each in found for key in [each.of, *each.calibration.attacks(each.of, plain)]}
    now = {key: level(data.scores[key].double(), log_scale[key.attack]) for key in plain if key in wanted}
    places = {key: choose({1.0: data.scores[key]}, data).places for key in now}
    earlier: list[list[dict[AuditKey, Tensor]]] = [[] for _ in data.folds]
    for time in sorted(history):
        if not history[time].has(data.sample_index):
            continue
        then = history[time].at(data.sample_index)
        kept = {key: then.scores[key] for key in now if key in then.scores}
        kept = {key: score for key, score in kept.items() if then.timesteps[key.attack] == data.timesteps[key.attack]}
        for number, audits in enumerate(earlier):
            rows = {key: kept[key][min(number, len(kept[key]) - 1), places[key][number]] for key in kept}
            audits.append({key: level(row, log_scale[key.attack]).double() for key, row in rows.items()})
    scores, timesteps, keep = dict(data.scores), dict(data.timesteps), dict(data.keep_fraction)
    derived, num_fitted, coefficients = dict(data.derived), dict(data.num_fitted), dict(data.coefficients)
    for each in found:
        key, calibration, of, parts = each.key, each.calibration, each.of, list[Tensor]()
        for number, fold in enumerate(data.folds):
            known = Known(
                of,
                places[of][number],
                {other: score[number] for other, score in now.items()},
                {other: at[number] for other, at in places.items()},
                [audit for audit in earlier[number] if of in audit] if calibration.needs_history else [],
                complexity,
                data.is_member,
                fold.chooses,
                {other: each_level[number] for other, each_level in data.reference.items()}
                if calibration.needs_reference
                else None,
            )
            with blamed_on(calibration):
                made = calibration(known)
                num_timesteps = len(known.now[of]) if calibration.per_timestep else 1
                parts.append(check_shape("score", made.score, (num_timesteps, len(data.is_member))))
            fitted = {f"calibration/{key}/half{number + 1}/{name}": value for name, value in made.coefficients.items()}
            coefficients |= fitted
            # A timestep that was chosen for a score of one number is in no list of candidates: it counts as fitted.
            hides_choice = calibration.needs_choice and not calibration.per_timestep and now[of].shape[1] > 1
            inside = sum(data.num_fitted.get(other, 0) for other in {of, *calibration.attacks(of, plain)})
            num_fitted[key] = max(num_fitted.get(key, 0), inside + max(made.num_fitted, int(hides_choice)))
        is_one = all(torch.equal(part, parts[0]) for part in parts[1:])
        scores[key] = parts[0].expand(len(parts), -1, -1) if is_one else torch.stack(parts)
        keep[key] = data.keep_fraction[of]
        timesteps[key.attack] = data.timesteps[of.attack] if calibration.per_timestep else []
        derived[key] = each.derived
    return replace(
        data,
        scores=scores,
        timesteps=timesteps,
        keep_fraction=keep,
        derived=derived,
        num_fitted={key: count for key, count in num_fitted.items() if count},
        coefficients=coefficients,
    )
