"""Ratio: an attack's score beyond what another model has of the same image, over all timesteps."""

from typing import ClassVar

from ldm_privacy.calibrations.base import Calibrated, Calibration, Known
from ldm_privacy.registry import CALIBRATIONS


@CALIBRATIONS.register("ratio")
class Ratio(Calibration):
    """Mean over all audited timesteps of the level minus the reference's; see `Reference`.

    Of Loss that is minus the mean of log S_target - log S_reference, which log makes free of each timestep's scale. Nothing is
    chosen and nothing fitted. Threat model as of `Reference`. One more pass for each query, of the reference; no further
    randomness.

    Measured on a LoRA against its base (one run, 60 + 60 images of emoji, eight timesteps): AUROC .995 [.98, 1.0] where Loss at
    the chosen timestep has .684 and its log ratio .961; .91 [.85, .96] after about 48 steps, where plain attacks are at chance;
    .978 against a relative of the base. A mean of plain log Loss over the timesteps doesn't help (.657).
    """

    needs_reference: ClassVar[bool] = True
    needs_choice: ClassVar[bool] = False
    counts_onset: ClassVar[bool] = True

    def __call__(self, known: Known) -> Calibrated:
        return Calibrated(known.beyond_reference(known.key).mean(0, keepdim=True), {})
