"""An audit in a few numbers, for the processes of a training that hold no report."""

from dataclasses import dataclass

from ldm_privacy.onset import Rise
from ldm_privacy.types import Estimate


@dataclass(frozen=True)
class AuditNews:
    """What every process learns of an audit.

    Attributes:
        auroc: Of the onset's attack and mask.
        num_reported: Samples that it rests on.
        rise: Since the untrained denoiser; None in its own audit.
    """

    auroc: Estimate
    num_reported: int
    rise: Rise | None
