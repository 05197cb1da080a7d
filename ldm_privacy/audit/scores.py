"""Membership scores of an audit: what is stored, compared and reported."""

from dataclasses import dataclass, field

from torch import Tensor

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

    def labels(self, attack: str) -> list[int | None]:
        """What the rows of its scores are called: timesteps, or None where one number is for all."""
        return [*self.timesteps[attack]] or [None]

    def group_of(self, rows: Tensor) -> Tensor | None:
        """Groups of some of the samples."""
        return None if self.group is None else self.group[rows]
