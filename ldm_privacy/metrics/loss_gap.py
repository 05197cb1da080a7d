"""The denoising-loss gap between held-out samples and members: how far it has opened in training."""

import math

import torch
from scipy import stats
from torch import Tensor

from ldm_privacy.metrics.checks import check_finite, check_same_samples, check_scores, check_share
from ldm_privacy.metrics.resampling import mean_variance, side_resamplers
from ldm_privacy.metrics.welch import welch_law
from ldm_privacy.types import Estimate


def loss_gap_rise(
    loss: Tensor, baseline_loss: Tensor, is_member: Tensor, *, confidence: float = 0.95, group: Tensor | None = None
) -> Estimate:
    """Rise of `mean loss(held-out) - mean loss(members)` over the untrained denoiser's, with a one-sided lower bound.

    Paired within each sample: with d = loss - baseline loss the rise is `mean_heldout(d) - mean_members(d)`, in which what
    makes a sample hard or easy from the start cancels. The bound is Welch's (`welch_law`), unequal variances. With `group` the
    units are groups: the variance of a side's mean is then `k / (k - 1) sum_g (sum_{i in g} (d_i - mean))^2 / n^2`, and k
    groups take the place of n samples in the degrees of freedom.

    Args:
        loss, baseline_loss: (samples,) per-sample losses at the same timesteps and with the same noise, same samples.
        is_member: (samples,) bool.
        confidence: Of the lower bound.
        group: (samples,) labels of groups; no group on both sides.

    Returns:
        The rise and its bound (upper = infinity); -infinity where a side has a single sample (or group).

    Raises:
        UserError: a class is missing, a loss is not finite, lengths differ, a group on both sides.
    """
    check_share("confidence", confidence)
    for values in (loss, baseline_loss):
        check_finite(values, "the denoising loss at place", "lower denoiser.learning_rate.")
    loss, is_member = check_scores(loss, is_member)
    baseline_loss, _ = check_scores(baseline_loss, is_member)
    check_same_samples(loss, baseline_loss)
    member_side, heldout_side = side_resamplers(is_member, group)
    if torch.equal(loss, baseline_loss):
        return Estimate(0.0, 0.0, math.inf)
    change = loss - baseline_loss
    member, heldout = change[is_member].cpu().numpy(), change[~is_member].cpu().numpy()
    value = float(heldout.mean() - member.mean())
    if min(member_side.num_units, heldout_side.num_units) < 2:
        return Estimate(value, -math.inf, math.inf)
    variances = mean_variance(member, member_side), mean_variance(heldout, heldout_side)
    if sum(variances) == 0.0:
        return Estimate(value, value, math.inf)
    law = welch_law(value, variances[0], member_side.num_units, variances[1], heldout_side.num_units)
    return Estimate(value, float(stats.t.ppf(1.0 - confidence, *law)), math.inf)
