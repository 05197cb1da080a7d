"""The denoising-loss gap between held-out samples and members: how far it has opened in training."""

import math

import torch
from scipy import stats
from torch import Tensor

from ldm_privacy.errors import UserError
from ldm_privacy.metrics import check_scores
from ldm_privacy.metrics.checks import check_same_samples, check_share
from ldm_privacy.metrics.resampling import mean_variance, side_resamplers
from ldm_privacy.types import Estimate


def loss_gap_rise(
    loss: Tensor, baseline_loss: Tensor, is_member: Tensor, *, confidence: float = 0.95, group: Tensor | None = None
) -> Estimate:
    """Rise of `mean loss(held-out) - mean loss(members)` over the untrained denoiser's, with a one-sided lower bound.

    Paired within each sample: with d = loss - baseline loss the rise is `mean_heldout(d) - mean_members(d)`, in which what
    makes a sample hard or easy from the start cancels. The bound is Welch's (Biometrika 1947), unequal variances:
    `rise - t(confidence, df) sqrt(v_m + v_h)` with the variances v of the two means and the Welch-Satterthwaite df
    `(v_m + v_h)^2 / (v_m^2 / (n_m - 1) + v_h^2 / (n_h - 1))`. With `group` the units are groups: v is then `k / (k - 1)
    sum_g (sum_{i in g} (d_i - mean))^2 / n^2`, and k groups take the place of n samples in df.

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
        if not values.isfinite().all():
            place = int((~values.isfinite()).nonzero()[0])
            raise UserError(f"the denoising loss at place {place} is {float(values[place])}: lower denoiser.learning_rate.")
    loss, is_member = check_scores(loss, is_member)
    baseline_loss, _ = check_scores(baseline_loss, is_member)
    check_same_samples(loss, baseline_loss)
    member_side, heldout_side = side_resamplers(is_member, group)
    change = loss - baseline_loss
    member, heldout = change[is_member].cpu().numpy(), change[~is_member].cpu().numpy()
    value = float(heldout.mean() - member.mean())
    if torch.equal(loss, baseline_loss):
        return Estimate(0.0, 0.0, math.inf)
    if min(member_side.num_units, heldout_side.num_units) < 2:
        return Estimate(value, -math.inf, math.inf)
    variances = mean_variance(member, member_side), mean_variance(heldout, heldout_side)
    total = sum(variances)
    if total == 0.0:
        return Estimate(value, value, math.inf)
    squares = [variance**2 / (side.num_units - 1) for variance, side in zip(variances, (member_side, heldout_side))]
    lower = value - float(stats.t.isf(1.0 - confidence, total**2 / sum(squares))) * math.sqrt(total)
    return Estimate(value, lower, math.inf)
