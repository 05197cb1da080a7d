"""The difference of two sides' means, of any quantity of a sample."""

import math

from scipy import stats
from torch import Tensor

from ldm_privacy.metrics.checks import check_scores, check_share
from ldm_privacy.metrics.resampling import sides_of
from ldm_privacy.metrics.welch import welch_law
from ldm_privacy.types import Estimate


def mean_difference(
    value: Tensor,
    is_member: Tensor,
    *,
    confidence: float = 0.95,
    group: Tensor | None = None,
    is_one_sided: bool = False,
) -> Estimate:
    """`mean_members(value) - mean_heldout(value)`, with Welch's interval (`welch_law`; Biometrika 1947), unequal variances.

    With `group` the units are groups, in the variance of a side's mean (`SideResampler.mean_variance`) and in the degrees of
    freedom.

    Args:
        value: (samples,), any real dtype.
        is_member, confidence, group: As in `ldm_privacy.metrics`; so are errors.
        is_one_sided: The lower bound alone has the confidence, the upper one is infinity.

    Returns:
        The difference and its bounds; infinite ones where a side has a single sample (or group).
    """
    tail = (1.0 - check_share("confidence", confidence)) / (1 if is_one_sided else 2)
    value, is_member = check_scores(value, is_member)
    sides = sides_of(is_member, group)
    member, heldout = value[is_member].cpu().numpy(), value[~is_member].cpu().numpy()
    difference = float(member.mean() - heldout.mean())
    if sides.num_pairs < 2:
        return Estimate(difference, -math.inf, math.inf)
    variances = sides.member.mean_variance(member), sides.heldout.mean_variance(heldout)
    lower = upper = difference
    if sum(variances) > 0.0:
        law = welch_law(difference, variances[0], sides.member.num_units, variances[1], sides.heldout.num_units)
        lower, upper = (float(stats.t.ppf(each, *law)) for each in (tail, 1 - tail))
    return Estimate(difference, lower, math.inf if is_one_sided else upper)
