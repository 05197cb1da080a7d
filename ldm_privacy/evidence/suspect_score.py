"""The score that speaks of a suspect set: attack, mask, timestep, calibration, chosen on members and held-out images alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ldm_privacy.calibrations.base import Known
from ldm_privacy.errors import UserError
from ldm_privacy.metrics import auroc
from ldm_privacy.types import AuditKey, MembershipScore

CALIBRATIONS: tuple[Literal["", "complexity", "reference"], ...] = ("", "complexity", "reference")
"""None; minus the regression on the images' complexity; minus what the target's reference has. None is fitted to members."""


@dataclass(frozen=True, eq=False)
class Levels:
    """What a target says of some images.

    Attributes:
        now: (timesteps, images) membership levels (`calibrate.level`) by attack and mask, higher = member.
        timesteps: By attack; none for attacks with one number for all.
        complexity: (images,) ln of the bytes as PNG; None where it wasn't measured.
        reference: As `now`, of the target's reference; {} where it has none.
    """

    now: Mapping[AuditKey, Tensor]
    timesteps: Mapping[str, Sequence[int]]
    complexity: Tensor | None = None
    reference: Mapping[AuditKey, Tensor] = field(default_factory=dict)

    def under(self, key: AuditKey, calibration: str, is_member: Tensor, chooses: Tensor) -> Tensor | None:
        """(timesteps, images), calibrated; fitted is to the held-out images that choose alone. None where it can't be."""
        level = self.now[key].double()
        if calibration == "complexity" and self.complexity is not None:
            return Known(key, 0, {}, {}, [], self.complexity, is_member, chooses).beyond_complexity(level)[0]
        if calibration == "reference" and key in self.reference:
            return level - self.reference[key].double()
        return None if calibration else level


class ScoreChoice(NamedTuple):
    """A score, and how well it told members from held-out images on the half that chose it.

    Attributes:
        key: Attack and mask.
        place, timestep: Of the timestep; None for an attack with one number for all.
        calibration: One of `CALIBRATIONS`.
        auroc: On the half that chose: the best of all, so too high.
    """

    key: AuditKey
    place: int
    timestep: int | None
    calibration: str
    auroc: float

    def __str__(self) -> str:
        when = "" if self.timestep is None else f" at t = {self.timestep}"
        return f"{self.key}{when}{f', calibrated by {self.calibration}' if self.calibration else ''}"


def choose_score(levels: Levels, is_member: Tensor, chooses: Tensor) -> ScoreChoice:
    """The score of largest AUROC on the images that choose; the first of equal ones.

    Args:
        levels: Of members and held-out images.
        is_member, chooses: (images,) bool. Nobody who is suspected may be among those that choose.

    Raises:
        UserError: A score is not finite, or every one is constant.
    """
    found: list[ScoreChoice] = []
    for key in levels.now:
        for calibration in CALIBRATIONS:
            if (level := levels.under(key, calibration, is_member, chooses)) is None:
                continue
            areas = auroc(level[:, chooses], is_member[chooses])
            place = int(areas.argmax())
            timestep = [*levels.timesteps[key.attack], None][place] if levels.timesteps[key.attack] else None
            if float(level[place, chooses].std()) > 0:
                found.append(ScoreChoice(key, place, timestep, calibration, float(areas[place])))
    if not found:
        raise UserError("ckpt: every attack gives all images the same score; there is nothing to test.")
    return max(found, key=lambda each: each.auroc)


def scores_under(choice: ScoreChoice, levels: Levels, is_member: Tensor, chooses: Tensor) -> MembershipScore:
    """(images,) of the chosen score; images that are neither member nor choose get what was fitted to the others."""
    level = levels.under(choice.key, choice.calibration, is_member, chooses)
    assert level is not None
    return level[choice.place]


def joined(parts: Sequence[Levels]) -> Levels:
    """The levels of several sets of images, one after the other; of what all of them have."""
    keys = [key for key in parts[0].now if all(key in each.now for each in parts)]
    compared = [key for key in parts[0].reference if all(key in each.reference for each in parts)]
    complexity = [each.complexity for each in parts if each.complexity is not None]
    return Levels(
        {key: torch.cat([each.now[key].double() for each in parts], 1) for key in keys},
        parts[0].timesteps,
        torch.cat(complexity) if len(complexity) == len(parts) else None,
        {key: torch.cat([each.reference[key].double() for each in parts], 1) for key in compared},
    )
