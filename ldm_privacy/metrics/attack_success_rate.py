"""Attack success rate: the balanced accuracy of the best threshold, found on the samples that it is reported on."""

import numpy as np
import torch
from scipy import optimize, stats
from torch import Tensor

from ldm_privacy.metrics.checks import check_scores, check_share, row_chunks
from ldm_privacy.metrics.resampling import SideResampler, sides_of
from ldm_privacy.types import Estimate


def attack_success_rate(score: Tensor, is_member: Tensor) -> Tensor:
    """`max over thresholds of (TPR + 1 - FPR) / 2`: optimistic, as the threshold is chosen on the reported samples.

    With scores that know nothing it is still above 0.5, by about 0.43 * sqrt(1 / members + 1 / held-out).

    Returns:
        Tensor float64 (...), in [0.5, 1], counted in integers. O(samples log samples) a row. Arguments and errors: see
        `ldm_privacy.metrics`.
    """
    score, is_member = check_scores(score, is_member)
    num_members = int(is_member.sum())
    num_heldout = len(is_member) - num_members
    # TPR - FPR in units of 1 / (members * held-out).
    step = torch.where(is_member, num_heldout, -num_members)
    best = []
    for rows in row_chunks(score):
        ordered, order = rows.sort(dim=-1, descending=True)
        gain = step[order].cumsum(dim=-1)
        # No threshold passes between tied scores. The last gain, of the threshold that flags all, is 0.
        gain[:, :-1].masked_fill_(ordered[:, 1:] == ordered[:, :-1], 0)
        best.append(gain.amax(dim=-1))
    return (0.5 + torch.cat(best).double() / (2 * num_members * num_heldout)).reshape(score.shape[:-1])


def attack_success_rate_interval(
    score: Tensor,
    is_member: Tensor,
    *,
    confidence: float = 0.95,
    group: Tensor | None = None,
    num_bootstrap: int = 200,
    seed: int = 0,
) -> Estimate:
    """Attack success rate with an interval for the best balanced accuracy in the population.

    S is the largest of many noisy rates, so it lies too high, and a bootstrap of a maximum misses: its percentiles never
    hold 0.5 under no signal. Used instead, with t the best threshold found and `e` the mean over resamples (a few hundred are
    enough) of "rate of the resample minus what its own best threshold is worth on the sample":

    * lower end: `S - e - z d`, what is left after the expected gain from choosing;
    * upper end: `S + z d`: the best threshold of the population can't have done better on the sample than t did;
    * `d^2 = (p (1 - p) / (n + 4) of the members + the same of the held-out) / 4`, p = (flagged + 2) / (n + 4): the
      variance of the rate at t, after Agresti & Coull (The American Statistician 1998). With groups n is the effective
      number of samples of each side, samples / design effect, between the number of groups and that of samples;
    * the lower end is at most the bound that a perfectly separated sample gets: a best balanced accuracy s separates k
      = min(members, held-out) per side with probability <= `2 k (1 - s) s^(2k - 2) + (2s - 1)^k`, and the bound is
      where this is (1 - confidence) / 2 (1 - 2.8 / k at 95 %).

    Where all scores are tied, so are k disjoint pairs: P(tie) >= `q = (1 - confidence)^(1 / k)`, interval [0.5, 1 - q / 2].

    The upper end forgoes what choosing gained and is conservative. Simulated coverage at nominal 95 % is 95-97 % at 100,
    417 and 2,500 per side (AUROC 0.5 to 0.98; docs/results/coverage.md). Arguments and errors: see `ldm_privacy.metrics`.
    """
    tail = (1.0 - check_share("confidence", confidence)) / 2
    score, is_member = check_scores(score, is_member)
    sides = sides_of(is_member, group)
    if score.min() == score.max():
        return Estimate(0.5, 0.5, 1.0 - (1.0 - confidence) ** (1.0 / sides.num_pairs) / 2)
    order = torch.argsort(score, descending=True).cpu().numpy()
    member, ordered = is_member.cpu().numpy(), score.cpu().numpy()[order]
    # Members, then held-out: where each place of the order is among them.
    side = np.where(member, np.cumsum(member) - 1, member.sum() + np.cumsum(~member) - 1)[order]
    is_cut = np.append(ordered[1:] != ordered[:-1], True)
    cuts = slice(None) if is_cut.all() else is_cut

    def gains(member_weight: np.ndarray, heldout_weight: np.ndarray) -> np.ndarray:
        step = np.concatenate([member_weight / member_weight.sum(), heldout_weight / -float(heldout_weight.sum())])
        return np.cumsum(step[side])[cuts]

    gain = gains(np.ones(int(member.sum())), np.ones(int((~member).sum())))
    value = float(attack_success_rate(score, is_member))
    excess = 0.0
    for weights in sides.resamples("asr", num_bootstrap, seed):
        resampled_gain = gains(*weights)
        best = resampled_gain.argmax()
        excess += float(resampled_gain[best] - gain[best]) / 2 / num_bootstrap

    flagged = score.cpu().numpy() >= ordered[is_cut][gain.argmax()]
    variance = (_share_variance(flagged[member], sides.member) + _share_variance(flagged[~member], sides.heldout)) / 4
    half_width = float(stats.norm.isf(tail) * np.sqrt(variance))
    lower = min(value - excess - half_width, _separated_bound(sides.num_pairs, tail))
    return Estimate(value, max(0.5, lower), min(1.0, value + half_width))


def _share_variance(flagged: np.ndarray, side: SideResampler) -> float:
    """Variance of a share at a fixed threshold, never 0; fewer effective samples where groups agree within."""
    num_flagged, num_samples = float(flagged.sum()), float(len(flagged))
    share, num_effective = num_flagged / num_samples, num_samples
    if side.unit is not None:
        total = np.bincount(side.unit, weights=flagged - share)
        by_group = side.num_units / max(1, side.num_units - 1) * float(total @ total) / num_samples**2
        # All (or none) flagged: nothing tells how alike the samples of a group are.
        num_effective = share * (1 - share) / by_group if by_group > 0 else 0.0
        num_effective = min(max(num_effective, float(side.num_units)), num_samples)
    smoothed = (share * num_effective + 2) / (num_effective + 4)
    return smoothed * (1 - smoothed) / (num_effective + 4)


def _separated_bound(num_units: int, tail: float) -> float:
    """The best balanced accuracy under which perfect separation of that many per side has probability `tail` at most.

    Separation needs every member above the largest held-out score, whose specificity V is at least Beta(k, 1):
    probability E[TPR^k] <= E[min(1, 2s - V)^k], and `v (2s - v) <= s^2` bounds the integral in closed form.
    """

    def excess(rate: float) -> float:
        return 2 * num_units * (1 - rate) * rate ** (2 * num_units - 2) + (2 * rate - 1) ** num_units - tail

    return 0.5 if excess(0.5) >= 0 else float(optimize.brentq(excess, 0.5, 1.0))
