"""The denoising-loss gap between held-out samples and members: how far it has opened in training."""

import math

import torch
from torch import Tensor

from ldm_privacy.metrics.checks import check_finite, check_same_samples, check_scores, check_share
from ldm_privacy.metrics.mean_difference import mean_difference
from ldm_privacy.metrics.resampling import sides_of
from ldm_privacy.types import Estimate


def loss_gap_rise(
    loss: Tensor, baseline_loss: Tensor, is_member: Tensor, *, confidence: float = 0.95, group: Tensor | None = None
) -> Estimate:
    """Rise of `mean loss(held-out) - mean loss(members)` over the untrained denoiser's, with a one-sided lower bound.

    Paired within each sample: with d = loss - baseline loss the rise is `mean_heldout(d) - mean_members(d)`, in which what
    makes a sample hard or easy from the start cancels. The bound is Welch's (`mean_difference`).

    Args:
        loss, baseline_loss: (samples,) per-sample losses at the same timesteps and with the same noise, same samples.
        is_member, confidence, group: As in `ldm_privacy.metrics`; so are errors.

    Returns:
        The rise and its bound (upper = infinity); -infinity where a side has a single sample (or group).
    """
    check_share("confidence", confidence)
    for values in (loss, baseline_loss):
        check_finite(values, "the denoising loss at place", "lower denoiser.learning_rate.")
    loss, is_member = check_scores(loss, is_member)
    baseline_loss, _ = check_scores(baseline_loss, is_member)
    check_same_samples(loss, baseline_loss)
    if torch.equal(loss, baseline_loss):
        sides_of(is_member, group)
        return Estimate(0.0, 0.0, math.inf)
    return mean_difference(baseline_loss - loss, is_member, confidence=confidence, group=group, is_one_sided=True)
