"""What a calibration is: a score made of an attack's scores and of what else is known of the images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ldm_privacy.errors import UserError
from ldm_privacy.types import AuditKey, MembershipScore

MIN_SAMPLES = 5
"""Members, and held-out samples, that a half needs for a fit."""
SAMPLES_PER_NUMBER = 10
"""Of the smaller side of a half, for each number that is fitted with labels."""


@dataclass(frozen=True)
class Known:
    """What a calibration may look at, of all audited samples; fitted is on those that choose alone.

    Levels are membership scores, higher = member, made of the logarithm of the statistic where the attack has a `log_scale`.

    Attributes:
        key: The attack and mask that are wrapped.
        place: Of the timestep that its half chose for it.
        now: (timesteps, samples) levels of this audit, per attack and mask.
        places: The chosen places of all of `now`.
        earlier: (samples,) levels at the chosen places at earlier audits, oldest first; each has what is wrapped.
        complexity: (samples,) ln of the bytes of the losslessly encoded image; None where it isn't known.
        is_member, chooses: (samples,) bool; `chooses`: may be fitted on.
        reference: As `now`, what the reference has of the same samples under the same noise; None where there is none.
    """

    key: AuditKey
    place: int
    now: Mapping[AuditKey, Tensor]
    places: Mapping[AuditKey, int]
    earlier: Sequence[Mapping[AuditKey, Tensor]]
    complexity: Tensor | None
    is_member: Tensor
    chooses: Tensor
    reference: Mapping[AuditKey, Tensor] | None = None

    @property
    def level(self) -> Tensor:
        """(samples,) of what is wrapped, at the chosen timestep."""
        return self.now[self.key][self.place]

    def beyond_complexity(self, level: Tensor) -> tuple[Tensor, Tensor]:
        """A level (..., samples) minus its regression on the complexity, and the slopes (...); least squares.

        Fitted to the held-out samples that choose, so that no label of a member is looked at: a fit that could weigh the
        complexity itself would tell the sides apart wherever their images differ.
        """
        assert self.complexity is not None
        level, heldout = level.double(), self.chooses & ~self.is_member
        centred = self.complexity - self.complexity[heldout].mean()
        spread = centred[heldout].square().sum()
        # Images of one complexity: both are 0, and nothing is taken away.
        slope = level[..., heldout] @ centred[heldout] / spread.clamp_min(torch.finfo(spread.dtype).tiny)
        return level - slope[..., None] * centred, slope

    def beyond_reference(self, key: AuditKey) -> Tensor:
        """(timesteps, samples) of that attack and mask: the level minus the reference's."""
        assert self.reference is not None
        return self.now[key] - self.reference[key]

    @property
    def capacity(self) -> int:
        """How many numbers the half that chooses can bear to have fitted with its labels, one at least."""
        members = int((self.is_member & self.chooses).sum())
        return max(1, min(members, int(self.chooses.sum()) - members) // SAMPLES_PER_NUMBER)


@dataclass(frozen=True)
class Calibrated:
    """A calibrated score.

    Attributes:
        score: (timesteps, samples), or (1, samples) where the calibration is not `per_timestep`; higher = member.
        coefficients: What was fitted, by name.
        num_fitted: How many numbers were fitted with labels.
    """

    score: MembershipScore
    coefficients: Mapping[str, float]
    num_fitted: int = 0


class Calibration:
    """A score made of the scores of an audit, of earlier ones and of a reference, and of the images' complexity.

    A subclass writes `__call__`.

    Attributes:
        needs_history: It looks at earlier audits: a score of an insider, who has the run's checkpoints as the trainer has, not
            of somebody who was given the model.
        needs_complexity: It looks at the images' complexity.
        needs_reference: It looks at what another model has of the same images: left out where the target has no reference.
        needs_choice: It looks at the timestep that its half chose, where it is not `per_timestep`.
        per_timestep: One number per timestep; otherwise one for all.
        counts_onset: An onset of memorization is counted from its rise: it doesn't rise while nothing is learned.
        wraps: It is of one attack and mask, whose labels it bears ("sima_history"); otherwise of all of them together.
    """

    needs_history: ClassVar[bool] = False
    needs_complexity: ClassVar[bool] = False
    needs_reference: ClassVar[bool] = False
    needs_choice: ClassVar[bool] = True
    per_timestep: ClassVar[bool] = False
    counts_onset: ClassVar[bool] = False
    wraps: ClassVar[bool] = True

    def __call__(self, known: Known) -> Calibrated:
        """The calibrated scores of all samples, fitted on those that choose."""
        raise NotImplementedError

    def attacks(self, key: AuditKey, keys: Sequence[AuditKey]) -> Sequence[AuditKey]:
        """Whose earlier scores, and whose reference's, it looks at, of `keys`: those of what is wrapped."""
        return [key]

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({settings})"


def check_halves_suffice(is_calibration: Tensor, is_member: Tensor, *, cross_fit: bool) -> None:
    """Raise UserError where a half that fits has too few of a side."""
    for half in (is_calibration, ~is_calibration) if cross_fit else (is_calibration,):
        for side, what in ((is_member, "members"), (~is_member, "held-out samples")):
            if (count := int((half & side).sum())) < MIN_SAMPLES:
                raise UserError(
                    f"audit.calibrations: a half of the audit has {count} {what}, {MIN_SAMPLES} are needed to fit on. "
                    "Audit more samples (data.num_members, data.num_heldout, audit.max_samples), or audit.calibrations=[]."
                )
