"""Reference: an attack's score beyond what another model has of the same image, at each timestep."""

from typing import ClassVar

from ldm_privacy.calibrations.base import Calibrated, Calibration, Known
from ldm_privacy.registry import CALIBRATIONS


@CALIBRATIONS.register("reference")
class Reference(Calibration):
    """Level minus the reference's: log S_reference - log S_target for attacks with a `log_scale`, the difference otherwise.

    The reference is the same denoiser before it saw the members: the base that was fine-tuned, a model with its adapter off.
    How difficult an image is, both know; what is left was learned since. Both are asked with the same noise, which belongs to
    (seed, sample, timestep, draw). Nothing is fitted; each half chooses a timestep.

    Threat model: an outsider, where the reference is public; an insider, where it is an earlier checkpoint of the run.
    One more pass for each query, of the reference. No further randomness.

    Source: difficulty calibration (Watson, Guo, Cormode, Sablayrolles, arXiv 2111.08440) as a log ratio. Measured on a LoRA
    against its base (one run, 60 + 60 images of emoji, at the chosen timestep): Loss AUROC .684 -> .961, SimA .813 -> .845;
    with two draws that are shared .954, with two that are not .713.
    """

    needs_reference: ClassVar[bool] = True
    per_timestep: ClassVar[bool] = True
    counts_onset: ClassVar[bool] = True

    def __call__(self, known: Known) -> Calibrated:
        return Calibrated(known.beyond_reference(known.key), {})
