"""Area under the ROC curve: P(score of a member > score of a held-out sample) + half the probability of a tie."""

import numpy as np
import torch
from scipy import special, stats
from torch import Tensor

from ldm_privacy.metrics.checks import check_scores, check_share
from ldm_privacy.metrics.placements import placements, twice_num_below
from ldm_privacy.metrics.resampling import SideResampler, bootstrap_generator, side_resamplers
from ldm_privacy.types import Estimate

_NUMBERS_AT_ONCE = 2**21
"""Rows are worked through in chunks of this many scores, so that memory does not grow with the number of rows."""


def auroc(score: Tensor, is_member: Tensor) -> Tensor:
    """AUROC with mid-rank ties (the Mann-Whitney statistic over members x held-out); constant scores give 0.5.

    `(#{x_i > y_j} + #{x_i = y_j} / 2) / (members * held-out)`, counted in integers, so that no increasing map of the
    scores changes a digit.

    Args:
        score: (..., samples), higher = member.
        is_member: (samples,) bool, the same for every row.

    Returns:
        Tensor float64 (...), in [0, 1]. O(samples log samples) a row; no network passes, no randomness.

    Raises:
        UserError: see `check_scores`.
    """
    score, is_member = check_scores(score, is_member)
    rows = score.reshape(-1, score.shape[-1])
    num_members = int(is_member.sum())
    num_pairs = num_members * (len(is_member) - num_members)
    areas = [
        # Sorted queries walk through memory in order: several times faster than random look-ups.
        twice_num_below(chunk[:, is_member].sort(dim=-1).values, chunk[:, ~is_member]).sum(dim=-1).double()
        for chunk in rows.split(max(1, _NUMBERS_AT_ONCE // rows.shape[-1]))
    ]
    return (torch.cat(areas) / (2 * num_pairs)).reshape(score.shape[:-1])


def auroc_interval(
    score: Tensor,
    is_member: Tensor,
    *,
    confidence: float = 0.95,
    group: Tensor | None = None,
    num_bootstrap: int = 1000,
    seed: int = 0,
) -> Estimate:
    """AUROC with its two-sided interval over the audited samples (the randomness of training is not in it).

    * In general: DeLong's variance `var(V10) / members + var(V01) / held-out` (DeLong, DeLong & Clarke-Pearson,
      Biometrics 1988; sort-based placements of Sun & Xu 2014), normal on the logit scale.
    * With `group`: percentiles of a bootstrap that resamples whole groups, members and held-out separately.
    * Where the AUROC is 0 or 1, every resample is separated like the sample, so the bootstrap gives the single point:
      that is its one end here, and the other end is exact. Perfect separation needs k = min(members, held-out)
      disjoint pairs to be in order, which has probability <= AUROC^k for every pair of distributions, so an AUROC
      below `((1 - confidence) / 2)^(1 / k)` is refuted (1 - 3.7 / k at 95 %); no larger bound holds for all
      distributions. Groups are counted in place of samples.
    * Where all scores are tied, all k pairs are: P(tie) >= `q = (1 - confidence)^(1 / k)`, interval [q / 2, 1 - q / 2].
    * With a single sample (or group) on a side and none of this, no variance can be estimated: [0, 1].

    Args:
        score: (samples,), higher = member.
        is_member: (samples,) bool.
        confidence: Nominal coverage.
        group: (samples,) labels (patient, identity); no group on both sides.
        num_bootstrap: Resamples of the group bootstrap.
        seed: Seed of the group bootstrap; nothing else here is random.

    Raises:
        UserError: see `check_scores`; a group on both sides.
    """
    check_share("confidence", confidence)
    score, is_member = check_scores(score, is_member)
    member_side, heldout_side = side_resamplers(is_member, group)
    value = float(auroc(score, is_member))
    num_pairs = min(member_side.num_units, heldout_side.num_units)
    if value in (0.0, 1.0):
        bound = ((1.0 - confidence) / 2) ** (1.0 / num_pairs)
        return Estimate(value, bound, 1.0) if value == 1.0 else Estimate(value, 0.0, 1.0 - bound)
    if score.min() == score.max():
        share_tied = (1.0 - confidence) ** (1.0 / num_pairs)
        return Estimate(value, share_tied / 2, 1.0 - share_tied / 2)
    if num_pairs < 2:
        return Estimate(value, 0.0, 1.0)
    if group is not None:
        areas = _bootstrap_areas(score, is_member, member_side, heldout_side, num_bootstrap, seed)
        lower, upper = np.quantile(areas, [(1.0 - confidence) / 2, (1.0 + confidence) / 2])
        return Estimate(value, float(lower), float(upper))
    member_placement, heldout_placement = placements(score, is_member)
    variance = float(member_placement.var() / member_placement.numel() + heldout_placement.var() / heldout_placement.numel())
    centre = np.log(value / (1.0 - value))
    half_width = stats.norm.isf((1.0 - confidence) / 2) * np.sqrt(variance) / (value * (1.0 - value))
    lower, upper = special.expit([centre - half_width, centre + half_width])
    return Estimate(value, float(lower), float(upper))


def _bootstrap_areas(
    score: Tensor,
    is_member: Tensor,
    member_side: SideResampler,
    heldout_side: SideResampler,
    num_bootstrap: int,
    seed: int,
) -> np.ndarray:
    # Sorted once: a resample only changes how often each sample counts, so each one is a cumulative sum.
    member, heldout = score[is_member].cpu().numpy(), score[~is_member].cpu().numpy()
    order = np.argsort(heldout)
    first = np.searchsorted(heldout[order], member, side="left")
    last = np.searchsorted(heldout[order], member, side="right")
    generator = bootstrap_generator("auroc", seed)
    areas = np.empty(num_bootstrap)
    for index in range(num_bootstrap):
        member_count = member_side.draw(generator)
        below = np.concatenate([[0], np.cumsum(heldout_side.draw(generator)[order])])
        areas[index] = member_count @ (below[first] + below[last]) / (2.0 * member_count.sum() * below[-1])
    return areas
