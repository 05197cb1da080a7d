"""Gained: history and complexity, of what was learned since the first audit."""

from typing import ClassVar

from torch import Tensor

from ldm_privacy.calibrations.base import Known
from ldm_privacy.calibrations.calibrated import HistoryAndComplexity
from ldm_privacy.registry import CALIBRATIONS


@CALIBRATIONS.register("gained")
class Gained(HistoryAndComplexity):
    """As `HistoryAndComplexity`, of levels minus those of the first audit that is known, in a run the untrained denoiser's.

    What leaks before the first step (through the autoencoder, say) is taken away, so an onset can be counted from it: a history
    of plain levels averages a constant leak ever better, and would rise without anything being learned. At the first audit it
    ranks nobody. Threat model: an insider, who has the run's checkpoints. No passes, no randomness.
    """

    counts_onset: ClassVar[bool] = True

    def levels(self, known: Known) -> dict[str, Tensor]:
        found = super().levels(known)
        first = found.pop(f"audit-{len(known.earlier)}", found["now"])
        return {name: level - first for name, level in found.items()}
