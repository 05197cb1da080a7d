"""Complexity: an attack's score beyond what the image's complexity lets expect."""

from typing import ClassVar

import torch

from ldm_privacy.calibrations.base import Calibrated, Calibration, Known
from ldm_privacy.registry import CALIBRATIONS


@CALIBRATIONS.register("complexity")
class Complexity(Calibration):
    """Level minus its regression on ln(PNG bytes), fitted by least squares to the held-out samples of the half that chooses.

    A busy image is hard to denoise whether it was trained on or not; what is left is free of that. No labels of members are
    looked at, so it is known to whoever has the image. After the calibration of T_mc by PNG bytes (T_mc_cal); a fitted slope
    where that divides, since a division can hurt. One number per timestep is fitted; no passes, no randomness.
    """

    needs_complexity: ClassVar[bool] = True
    per_timestep: ClassVar[bool] = True

    def __call__(self, known: Known) -> Calibrated:
        assert known.complexity is not None
        level, heldout = known.now[known.key].double(), known.chooses & ~known.is_member
        centred = known.complexity - known.complexity[heldout].mean()
        spread = centred[heldout].square().sum()
        # Images of one complexity: there is nothing to take away.
        slope = level[:, heldout] @ centred[heldout] / spread if spread > 0 else torch.zeros(len(level)).double()
        return Calibrated(
            level - slope[:, None] * centred, {f"slope{place}": value for place, value in enumerate(slope.tolist())}
        )
