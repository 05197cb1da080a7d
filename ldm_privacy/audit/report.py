"""From membership scores to the numbers that are reported: each half chooses for the other."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from ldm_privacy.audit.row import AuditRow, rivals_of, row_of, standing
from ldm_privacy.audit.samples import check_halves
from ldm_privacy.audit.scores import TUNED, AuditScores
from ldm_privacy.audit.sweep import RANKINGS, Areas, SweepPoint, choose, reported_halves, sweep_points
from ldm_privacy.audit.views import mean_use
from ldm_privacy.device import give_back
from ldm_privacy.errors import UserError
from ldm_privacy.metrics import Half, QuartileAuroc, auroc_by_quartile
from ldm_privacy.types import AuditKey, Estimate, Intervals


@dataclass(frozen=True)
class AuditReport:
    """What an audit found: its scores, a row per attack and mask, the keep-fraction curves.

    Attributes:
        data: The scores, in ascending order of sample index.
        rows: In the order of the config; an attack's `tuned` row comes last.
        intervals: How they were made.
        target_fprs: Of the rows' TPRs.
        standings: By key, (samples,), see `scores_at`.
        halves: By key, what each half reports.
        areas: AUROCs that are known.
    """

    data: AuditScores
    rows: list[AuditRow]
    intervals: Intervals
    target_fprs: tuple[float, ...]
    standings: dict[AuditKey, Tensor] = field(repr=False)
    halves: dict[AuditKey, list[Half]] = field(repr=False)
    areas: Areas | None = field(default=None, repr=False)

    @property
    def confidence(self) -> float:
        """Of all intervals."""
        return self.intervals.confidence

    @cached_property
    def sweep(self) -> dict[str, list[SweepPoint]]:
        """Per attack, the AUROC by ranking and keep fraction; computed when first asked for, which no training does."""
        return {attack: sweep_points(self.data, attack, self.intervals, self.areas) for attack in self.data.sweeps}

    def row(self, key: AuditKey) -> AuditRow:
        """The row of that attack and mask."""
        return next(row for row in self.rows if row.key == key)

    @property
    def unmasked(self) -> list[AuditKey]:
        """Each attack with its first mask that keeps everything, where it has one; under the samples' own condition."""
        attacks = dict.fromkeys(row.key.attack for row in self.rows if row.key.attack not in self.data.views)
        found = [self.data.unmasked(attack) for attack in attacks]
        return [key for key in found if key is not None]

    def scores_at(self, key: AuditKey) -> Tensor:
        """(samples,) float64 scores of all audited samples at the chosen timestep, each fitted and chosen without the sample.

        On one scale for both halves; see `standing`. With one fold the calibration half's are what it fitted itself.
        """
        return self.standings[key]

    @cached_property
    def reference_alone(self) -> dict[str, Tensor]:
        """The reference's own scores by what they are called, (samples,), higher = member, on the scale of `standing`.

        Of each attack that is compared with it: at the timesteps that the halves chose for the target, and where something is
        made of all of them, the mean of its levels.
        """
        data, found = self.data, dict[str, Tensor]()
        for key, of in data.derived.items():
            if of.reference:
                level, attack = data.reference[of.plain], of.plain.attack
                places = [half.chosen for half in self.halves[of.plain]]
                if not data.timesteps[key.attack] and data.timesteps[attack]:
                    level, places, attack = level.mean(1, keepdim=True), [0] * len(places), f"{attack} over all t"
                masked = f" ({of.plain.mask})" if data.keep_fraction[of.plain] < 1 else ""
                found[f"{attack}{masked}"] = standing(level, places, data)
        return found

    def reported_scores(self, key: AuditKey) -> Tensor:
        """`scores_at` of the reported samples."""
        return self.scores_at(key)[self.is_reporting]

    def halves_among(self, key: AuditKey, sample_index: Tensor) -> list[Half]:
        """What each half reports of those samples, ascending; without a half that reports none of them."""
        index = (self.data.sample_index[fold.reports] for fold in self.data.folds)
        rows = [(half, torch.isin(each, sample_index)) for half, each in zip(self.halves[key], index, strict=True)]
        return [half.among(each) for half, each in rows if each.any()]

    def is_constant(self, key: AuditKey) -> bool:
        """Whether all samples have the same score: an attack that ranks nobody; its AUROC is .5 by ties."""
        score = self.scores_at(key)
        return bool(score.min() == score.max())

    @property
    def is_reporting(self) -> Tensor:
        """(samples,) bool: all of them, or with one fold those not of the calibration half."""
        return self.data.is_reporting

    @property
    def reported_membership(self) -> Tensor:
        """is_member of the reported samples, ascending by sample index."""
        return self.data.is_member[self.is_reporting]

    @property
    def reported_group(self) -> Tensor | None:
        """Groups of the reported samples, ascending by sample index."""
        return self.data.group_of(self.is_reporting)

    def quartiles(self, key: AuditKey, distortion: Tensor, *, at_choice: bool = False) -> QuartileAuroc:
        """AUROC of the reported samples by quartile of local distortion, over the samples that have one.

        A row per timestep; with `at_choice` one, of `scores_at`. `distortion`: (samples,), NaN where it wasn't measured.
        """
        data, score = self.data, self.data.scores[key]
        places = range(0 if at_choice else score.shape[1])
        # On one scale for both halves: where something is fitted, raw scores of two folds can't be ranked together.
        rows = torch.stack([standing(score, [place] * len(score), data) for place in places] or [self.standings[key]])
        chosen = self.is_reporting & distortion.isfinite()
        return auroc_by_quartile(
            rows[:, chosen],
            data.is_member[chosen],
            distortion[chosen],
            confidence=self.confidence,
            group=data.group_of(chosen),
        )

    @property
    def condition_use(self) -> Estimate | None:
        """How much predictions depend on the condition; see `views.condition_use`. None where it wasn't looked at."""
        use = self.data.condition_use
        return None if use is None or int(use.isfinite().sum()) < 2 else mean_use(use, self.confidence)

    def series(self) -> dict[str, float]:
        """All curves: name -> value."""
        use = {} if self.condition_use is None else self.condition_use.series("memorization/condition_use")
        return {name: value for row in self.rows for name, value in row.series().items()} | use


def report_of(
    data: AuditScores, *, intervals: Intervals | None = None, target_fprs: Sequence[float] = (0.01, 0.001)
) -> AuditReport:
    """The report of membership scores; a pure function of them, no network passes.

    Args:
        data: Scores, with sweeps where there are any: each attack that has one gets a `tuned` row.
        intervals: How they are made.
        target_fprs: Of TPR@FPR.

    Raises:
        UserError: Members or held-out samples are missing from one of the halves, or a score is not finite.
    """
    intervals = intervals or Intervals()
    check_halves(data.is_calibration, data.is_member, data.group)
    for key, score in data.scores.items():
        if not (finite := score.isfinite().all(0).all(0)).all():
            sample = int(data.sample_index[~finite][0])
            raise UserError(f"{key}: the score of sample {sample} is not finite; take the sample out, or mend the attack.")
    candidates = {key: {data.keep_fraction[key]: score} for key, score in data.scores.items()}
    for attack, sweep in data.sweeps.items():
        by_fraction = {fraction: score for (ranking, fraction), score in sweep.items() if ranking == RANKINGS[0]}
        if 1.0 in by_fraction and (unmasked := data.unmasked(attack)) is not None:
            by_fraction[1.0] = data.scores[unmasked]  # keep fraction 1 is the unmasked attack, to the last digit
        candidates[AuditKey(attack, TUNED)] = by_fraction
    # What an attack fits, it fits under every mask.
    num_fitted = {
        key: max((count for other, count in data.num_fitted.items() if other.attack == key.attack), default=0)
        for key in candidates
    }
    areas = Areas(data)
    choices = {key: choose(each, data, areas) for key, each in candidates.items()}
    kept = {key: sum(choice.keep_fractions) / len(choice.keep_fractions) for key, choice in choices.items()}
    data = replace(
        data,
        scores={key: choices[key].of(candidates[key]) for key in kept},
        keep_fraction=kept,
        num_fitted={key: count for key, count in num_fitted.items() if count},
    )
    standings = {key: standing(score, choices[key].places, data) for key, score in data.scores.items()}
    halves = {key: reported_halves(candidates[key], choices[key], data, num_fitted=num_fitted[key]) for key in candidates}
    rows = []
    attacks = list(dict.fromkeys(key.attack for key in data.scores))
    for key in sorted(data.scores, key=lambda key: (attacks.index(key.attack), key.mask == TUNED)):
        against = {label: halves[other] for label, other in rivals_of(key, data).items()}
        if key.mask == TUNED:
            against |= _controls_of(key, data, choices[key].keep_fractions, areas)
        rows.append(row_of(key, data, choices[key], halves[key], against, intervals, tuple(target_fprs)))
        give_back()
    return AuditReport(data, rows, intervals, tuple(target_fprs), standings, halves, areas)


def _controls_of(key: AuditKey, data: AuditScores, keep_fractions: Sequence[float], areas: Areas) -> dict[str, list[Half]]:
    """What the sweep's controls report at the keep fractions that were chosen for `tuned`, at their own timesteps."""
    sweep, found = data.sweeps.get(key.attack, {}), {}
    for ranking in RANKINGS[1:]:
        if all((ranking, fraction) in sweep for fraction in keep_fractions):
            score = areas.by_fold([sweep[ranking, fraction] for fraction in keep_fractions])
            found[ranking] = reported_halves({1.0: score}, choose({1.0: score}, data, areas), data)
    return found
