"""Complexity: an attack's score beyond what the image's complexity lets expect."""

from typing import ClassVar

from ldm_privacy.calibrations.base import Calibrated, Calibration, Known
from ldm_privacy.registry import CALIBRATIONS


@CALIBRATIONS.register("complexity")
class Complexity(Calibration):
    """Level minus its regression on ln(PNG bytes), see `Known.beyond_complexity`.

    A busy image is hard to denoise whether it was trained on or not; what is left is free of that. It takes the image alone, so
    an outsider has it too. After T_mc_cal (Rao & Moyer, arXiv 2603.13421), which divides by the bytes; a fitted slope, since a
    division can hurt. No passes, no randomness.
    """

    needs_complexity: ClassVar[bool] = True
    per_timestep: ClassVar[bool] = True
    counts_onset: ClassVar[bool] = True

    def __call__(self, known: Known) -> Calibrated:
        residual, slope = known.beyond_complexity(known.now[known.key])
        return Calibrated(residual, {f"slope{place}": value for place, value in enumerate(slope.tolist())})
