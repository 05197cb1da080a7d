"""Area under the ROC curve: P(score of a member > score of a held-out sample) + half the probability of a tie."""

import numpy as np
import torch
from scipy import special, stats
from torch import Tensor

from ldm_privacy.metrics.checks import check_scores, check_share
from ldm_privacy.metrics.placements import placements, twice_num_in_order
from ldm_privacy.metrics.resampling import Sides, percentiles, sides_of
from ldm_privacy.types import Estimate


def auroc(score: Tensor, is_member: Tensor) -> Tensor:
    """AUROC with mid-rank ties (the Mann-Whitney statistic over members x held-out); constant scores give 0.5.

    `(#{x_i > y_j} + #{x_i = y_j} / 2) / (members * held-out)`, counted in integers, so that no increasing map of the
    scores changes a digit.

    Returns:
        Tensor float64 (...), in [0, 1]. O(samples log samples) a row. Arguments and errors: see `ldm_privacy.metrics`.
    """
    given = torch.as_tensor(score)
    score, is_member = check_scores(given, is_member)
    num_members = int(is_member.sum())
    # Single precision is sorted in half the time, and its order is the same.
    rows = (given if given.dtype == torch.float32 else score).detach().reshape(-1, len(is_member)).cpu().numpy()
    member, heldout = (np.flatnonzero(side) for side in (is_member.cpu().numpy(), ~is_member.cpu().numpy()))
    twice = [twice_num_in_order(row[member], row[heldout]) for row in rows]
    area = torch.tensor(twice, dtype=torch.float64, device=score.device) / (2 * num_members * (len(is_member) - num_members))
    return area.reshape(score.shape[:-1])


def auroc_interval(
    score: Tensor,
    is_member: Tensor,
    *,
    confidence: float = 0.95,
    group: Tensor | None = None,
    num_bootstrap: int = 1000,
    seed: int = 0,
) -> Estimate:
    """AUROC with its interval. Arguments and errors: see `ldm_privacy.metrics`.

    * In general: DeLong's variance `var(V10) / members + var(V01) / held-out` (DeLong, DeLong & Clarke-Pearson,
      Biometrics 1988; sort-based placements of Sun & Xu 2014), normal on the logit scale.
    * With `group`: percentiles of the bootstrap.
    * Where the samples show no spread: see `interval_without_spread`; with a single sample (or group) on a side no variance
      can be estimated, [0, 1].
    """
    check_share("confidence", confidence)
    score, is_member = check_scores(score, is_member)
    sides = sides_of(is_member, group)
    value = float(auroc(score, is_member))
    exact = interval_without_spread(value, sides.num_pairs, is_tied=bool(score.min() == score.max()), confidence=confidence)
    if exact is not None:
        return exact
    if sides.num_pairs < 2:
        return Estimate(value, 0.0, 1.0)
    if group is not None:
        return Estimate(value, *percentiles(_bootstrap_areas(score, is_member, sides, num_bootstrap, seed), confidence))
    member_placement, heldout_placement = placements(score, is_member)
    variance = float(member_placement.var() / member_placement.numel() + heldout_placement.var() / heldout_placement.numel())
    centre = np.log(value / (1.0 - value))
    half_width = stats.norm.isf((1.0 - confidence) / 2) * np.sqrt(variance) / (value * (1.0 - value))
    lower, upper = special.expit([centre - half_width, centre + half_width])
    return Estimate(value, float(lower), float(upper))


def interval_without_spread(value: float, num_pairs: float, *, is_tied: bool, confidence: float) -> Estimate | None:
    """The interval of an AUROC whose samples show no spread; None where they do.

    With k = min(members, held-out) disjoint pairs, groups counted in place of samples:

    * AUROC 0 or 1: every resample is separated like the sample, which is one end; the other is exact. All k pairs are in order
      with probability <= AUROC^k for every pair of distributions, so an AUROC below `((1 - confidence) / 2)^(1 / k)` is
      refuted (1 - 3.7 / k at 95 %); no larger bound holds for all distributions.
    * All scores tied: so are all pairs, P(tie) >= `q = (1 - confidence)^(1 / k)`, interval [q / 2, 1 - q / 2].
    """
    if value in (0.0, 1.0):
        bound = ((1.0 - confidence) / 2) ** (1.0 / num_pairs)
        return Estimate(value, bound, 1.0) if value else Estimate(value, 0.0, 1.0 - bound)
    if is_tied:
        share_tied = (1.0 - confidence) ** (1.0 / num_pairs)
        return Estimate(value, share_tied / 2, 1.0 - share_tied / 2)
    return None


def _bootstrap_areas(score: Tensor, is_member: Tensor, sides: Sides, num_bootstrap: int, seed: int) -> np.ndarray:
    # Sorted once: a resample only changes how often each sample counts, so each one is a cumulative sum.
    member, heldout = score[is_member].cpu().numpy(), score[~is_member].cpu().numpy()
    order = np.argsort(heldout)
    first = np.searchsorted(heldout[order], member, side="left")
    last = np.searchsorted(heldout[order], member, side="right")
    areas = []
    for member_count, heldout_count in sides.resamples("auroc", num_bootstrap, seed):
        below = np.append(0, np.cumsum(heldout_count[order]))
        areas.append(member_count @ (below[first] + below[last]) / (2.0 * member_count.sum() * below[-1]))
    return np.array(areas)
