"""At which false-positive rate each image is found, among held-out images that were scored as it was."""

from typing import NamedTuple

import torch
from torch import Tensor

from ldm_privacy.audit.report import AuditReport


class HeldoutRanks(NamedTuple):
    """Where images stand among held-out images.

    Attributes:
        num_as_high: (..., samples) how many held-out images score at least as high; the image itself is not counted.
        num_compared: (samples,) out of how many.
    """

    num_as_high: Tensor
    num_compared: Tensor

    @property
    def fpr(self) -> Tensor:
        """(..., samples) (k + 1) / (n + 1): an image that was never seen gets a or less with a chance of at most a."""
        return (self.num_as_high + 1).double() / (self.num_compared + 1)


def heldout_ranks(score: Tensor, is_compared: Tensor, half: Tensor) -> HeldoutRanks:
    """Each image among the held-out images of its own half, whose scores were fitted and chosen by the same other half.

    A held-out image is compared with the others (leave one out), so that it is treated as a member is. Ties count against the
    image. A monotone map of one row of scores changes nothing.

    Args:
        score: (..., samples), higher = member; each row by itself.
        is_compared: (samples,) bool: the held-out images that others are compared with.
        half: (samples,) bool; all the same where there are no halves.
    """
    num_as_high = torch.zeros(score.shape, dtype=torch.int64)
    num_compared = torch.zeros(len(half), dtype=torch.int64)
    for part in (half, ~half):
        heldout = score[..., part & is_compared].contiguous().sort().values
        own = is_compared[part].long()
        below = torch.searchsorted(heldout, score[..., part].contiguous(), side="left")
        num_as_high[..., part] = heldout.shape[-1] - below - own
        num_compared[part] = heldout.shape[-1] - own
    return HeldoutRanks(num_as_high, num_compared)


def compared_in(report: AuditReport) -> tuple[Tensor, Tensor]:
    """`is_compared` and `half` of an audit's scores.

    Where one half alone reports, all images are compared with its held-out images: the other half's had a say in the choices.
    """
    data = report.data
    half = data.is_calibration if report.is_reporting.all() else torch.zeros_like(data.is_calibration)
    return ~data.is_member & report.is_reporting, half
