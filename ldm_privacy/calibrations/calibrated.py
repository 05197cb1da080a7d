"""Calibrated: history and complexity together."""

from typing import ClassVar

from ldm_privacy.calibrations.base import Calibrated, Known
from ldm_privacy.calibrations.history import History, levels
from ldm_privacy.calibrations.logistic import log_odds
from ldm_privacy.registry import CALIBRATIONS


@CALIBRATIONS.register("calibrated")
class HistoryAndComplexity(History):
    """As `History`, with ln(PNG bytes) among the features, the second of them.

    Threat model: an insider, who has the run's checkpoints. No passes, no randomness.
    """

    needs_complexity: ClassVar[bool] = True

    def __call__(self, known: Known) -> Calibrated:
        now, *earlier = levels(known).items()
        assert known.complexity is not None
        features = dict([now, ("complexity", known.complexity), *earlier])
        return log_odds(features, known, inverse_penalty=self.inverse_penalty)
