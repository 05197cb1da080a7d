"""History: an attack's score beyond what the same image had at earlier audits."""

from typing import ClassVar

from torch import Tensor

from ldm_privacy.calibrations.base import Calibrated, Calibration, Known
from ldm_privacy.calibrations.logistic import check_penalty, log_odds
from ldm_privacy.registry import CALIBRATIONS


@CALIBRATIONS.register("history")
class History(Calibration):
    """Logistic regression on the level at this audit and at earlier ones, at one timestep, fitted on the half that chooses.

    How difficult an image is changes little while a denoiser trains, how much it knows the image does. Fitted with labels,
    since earlier audits may leak already: a plain difference to them can lose. Without one it is the attack itself.
    Threat model: an insider, who has the run's checkpoints. No passes, no randomness.

    `inverse_penalty`: see `log_odds`.
    """

    needs_history: ClassVar[bool] = True

    def __init__(self, *, inverse_penalty: float = 1.0):
        self.inverse_penalty = check_penalty(inverse_penalty)

    def __call__(self, known: Known) -> Calibrated:
        return log_odds(self.levels(known), known, inverse_penalty=self.inverse_penalty)

    def levels(self, known: Known) -> dict[str, Tensor]:
        """The level at this audit and at earlier ones: now, the newest, the oldest, then those that halve what lies between."""
        earlier = [each[known.key] for each in known.earlier]
        return {"now": known.level, **{f"audit-{len(earlier) - place}": earlier[place] for place in spread_out(len(earlier))}}


def spread_out(count: int) -> list[int]:
    """0 to count - 1 in an order whose every beginning is spread out: the last, the first, the middle, the quarters, ..."""
    order = [count - 1, 0][:count]
    gaps = [(0, count - 1)]
    while gaps:
        order += [(low + high) // 2 for low, high in gaps if high - low > 1]
        gaps = [half for low, high in gaps if high - low > 1 for half in ((low, (low + high) // 2), ((low + high) // 2, high))]
    return order
