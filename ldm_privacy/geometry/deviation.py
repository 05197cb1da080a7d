"""The spread of the latents, dimension by dimension: what the mask `deviation` ranks by."""

from collections.abc import Callable

import torch
from torch import Tensor

from ldm_privacy.device import passes, rows_within
from ldm_privacy.errors import UserError
from ldm_privacy.types import Latent

_SAMPLES_AT_ONCE = 1024
"""The float64 copy is made of so many samples at a time."""


def latent_sum(latent: Latent) -> Tensor:
    """(channels, height, width) float64, over the samples; as many of them at a time as fit the memory budget."""
    rows = passes(len(latent), rows_within(16 * latent.shape[1:].numel(), latent.device))
    return torch.stack([latent[each].sum(dim=0, dtype=torch.float64) for each in rows]).sum(0)


def latent_mean(latent: Latent) -> Tensor:
    """(channels, height, width) float64, of the samples, one at least; see `latent_sum`."""
    return latent_sum(latent) / len(latent)


def latent_deviation(latent: Latent, *, total: Callable[[Tensor], Tensor] = lambda value: value) -> Tensor:
    """Standard deviation of each latent dimension over samples: sqrt(mean (z - mean z)^2), members and held-out pooled.

    Two passes in float64, so a mean that is large beside the deviation costs no digits. Divided by the number of samples
    (not one less), which no ranking sees. No randomness, no network passes.

    Args:
        latent: (samples, channels, height, width).
        total: Adds up a tensor over all processes, where each has a part of the samples; a part may be empty.

    Returns:
        (channels, height, width) float64, >= 0; the same for any order of the samples, to rounding.

    Raises:
        UserError: No samples in all, or a latent that is not finite; names its row.
    """
    finite = torch.cat([each.isfinite().flatten(1).all(dim=1) for each in latent.split(_SAMPLES_AT_ONCE)])
    if not finite.all():
        row = int((~finite).nonzero()[0])
        raise UserError(f"latent_deviation: the latent in row {row} is not finite; take the sample out of the audit.")
    count = int(total(torch.tensor(len(latent))))
    if count == 0:
        raise UserError("latent_deviation: there are no latents; audit at least one sample.")
    mean = total(latent_sum(latent)) / count
    squares = torch.zeros_like(mean)
    for chunk in latent.split(_SAMPLES_AT_ONCE):
        squares += (chunk.double() - mean).square().sum(dim=0)
    return (total(squares) / count).sqrt()
