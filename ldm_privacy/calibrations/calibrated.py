"""Calibrated: history and complexity together."""

from typing import ClassVar

from torch import Tensor

from ldm_privacy.calibrations.base import Known
from ldm_privacy.calibrations.history import History
from ldm_privacy.registry import CALIBRATIONS


@CALIBRATIONS.register("calibrated")
class HistoryAndComplexity(History):
    """As `History`, of levels that are calibrated by complexity, those of earlier audits too.

    Threat model: an insider, who has the run's checkpoints. No passes, no randomness.
    """

    needs_complexity: ClassVar[bool] = True

    def levels(self, known: Known) -> dict[str, Tensor]:
        return {name: known.beyond_complexity(level)[0] for name, level in super().levels(known).items()}
