"""From membership scores to the numbers that are reported: the choice on one half, everything else on the other."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from torch import Tensor

from ldm_privacy.audit.row import AuditRow, rivals_of, row_of
from ldm_privacy.audit.samples import check_halves
from ldm_privacy.audit.scores import TUNED, AuditScores
from ldm_privacy.audit.sweep import RANKINGS, SweepPoint, choose, sweep_points
from ldm_privacy.errors import UserError
from ldm_privacy.metrics import QuartileAuroc, auroc_by_quartile
from ldm_privacy.types import AuditKey, Intervals


@dataclass(frozen=True)
class AuditReport:
    """What an audit found: its scores, a row per attack and mask, the keep-fraction curves.

    Attributes:
        data: The scores, in ascending order of sample index.
        rows: In the order of the config; an attack's `tuned` row comes last.
        intervals: How they were made.
        target_fprs: Of the rows' TPRs.
    """

    data: AuditScores
    rows: list[AuditRow]
    intervals: Intervals
    target_fprs: tuple[float, ...]

    @property
    def confidence(self) -> float:
        """Of all intervals."""
        return self.intervals.confidence

    @cached_property
    def sweep(self) -> dict[str, list[SweepPoint]]:
        """Per attack, the AUROC by ranking and keep fraction; computed when first asked for, which no training does."""
        return {attack: sweep_points(self.data, attack, self.confidence) for attack in self.data.sweeps}

    def row(self, key: AuditKey) -> AuditRow:
        """The row of that attack and mask."""
        return next(row for row in self.rows if row.key == key)

    @property
    def unmasked(self) -> list[AuditKey]:
        """Each attack with its first mask that keeps everything, where it has one."""
        found = [self.data.unmasked(attack) for attack in dict.fromkeys(row.key.attack for row in self.rows)]
        return [key for key in found if key is not None]

    def place(self, key: AuditKey) -> int:
        """Place of the chosen timestep among the attack's."""
        return self.data.labels(key.attack).index(self.row(key).timestep)

    def scores_at(self, key: AuditKey) -> Tensor:
        """(samples,) scores of all audited samples at the chosen timestep, ascending by sample index."""
        return self.data.scores[key][self.place(key)]

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
        return self.data.group_of(self.is_reporting)

    def quartiles(self, key: AuditKey, distortion: Tensor) -> QuartileAuroc:
        """AUROC of the reporting half by timestep and quartile of local distortion, over the samples that have one.

        `distortion`: (samples,), NaN where it wasn't measured.
        """
        data = self.data
        chosen = self.is_reporting & distortion.isfinite()
        return auroc_by_quartile(
            data.scores[key][:, chosen],
            data.is_member[chosen],
            distortion[chosen],
            confidence=self.confidence,
            group=data.group_of(chosen),
        )

    def series(self) -> dict[str, float]:
        """All curves: name -> value."""
        return {name: value for row in self.rows for name, value in row.series().items()}


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
    check_halves(data.is_calibration, data.is_member)
    for key, score in data.scores.items():
        if not (finite := score.isfinite().all(0)).all():
            sample = int(data.sample_index[~finite][0])
            raise UserError(f"{key}: the score of sample {sample} is not finite; take the sample out, or mend the attack.")
    candidates = {key: {data.keep_fraction[key]: score} for key, score in data.scores.items()}
    for attack, sweep in data.sweeps.items():
        by_fraction = {fraction: score for (ranking, fraction), score in sweep.items() if ranking == RANKINGS[0]}
        if 1.0 in by_fraction and (unmasked := data.unmasked(attack)) is not None:
            by_fraction[1.0] = data.scores[unmasked]  # keep fraction 1 is the unmasked attack, to the last digit
        candidates[AuditKey(attack, TUNED)] = by_fraction
    choices = {key: choose(each, data) for key, each in candidates.items()}
    kept = {key: choice.keep_fraction for key, choice in choices.items()}
    data = replace(data, scores={key: candidates[key][kept[key]] for key in kept}, keep_fraction=kept)
    rows = []
    attacks = list(dict.fromkeys(key.attack for key in data.scores))
    for key in sorted(data.scores, key=lambda key: (attacks.index(key.attack), key.mask == TUNED)):
        against = {other.mask: data.scores[other][choices[other].place] for other in rivals_of(key, data)}
        if key.mask == TUNED:
            against |= {
                ranking: score[choose({fraction: score}, data).place]
                for (ranking, fraction), score in data.sweeps.get(key.attack, {}).items()
                if ranking != RANKINGS[0] and fraction == kept[key]
            }
        rows.append(row_of(key, data, choices[key], against, intervals, tuple(target_fprs)))
    return AuditReport(data, rows, intervals, tuple(target_fprs))
