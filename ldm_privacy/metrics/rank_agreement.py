"""Whether two attacks, or two epochs, point at the same samples."""

import math

import numpy as np
from scipy import stats
from torch import Tensor

from ldm_privacy.errors import UserError
from ldm_privacy.metrics.checks import MEND, check_finite, check_same_samples, check_share
from ldm_privacy.types import Estimate


def rank_agreement(score_a: Tensor, score_b: Tensor, *, confidence: float = 0.95) -> Estimate:
    """Spearman's rank correlation r of two scores of the same samples, with a two-sided interval.

    `tanh(atanh(r) +- z sqrt((1 + r^2 / 2) / (n - 3)))` (Bonett & Wright, Psychometrika 2000; meant for |correlation| below
    0.95). At r = +-1 that is a point; the interval is then that of rankings that differ by one exchange of neighbours,
    r = 1 - 12 / (n (n^2 - 1)), with the end 1 kept. Over the samples as independent draws; members and held-out together
    agree more than members alone, because both attacks see membership.

    Args:
        score_a, score_b: (samples,), the same four samples or more in the same order, any monotone scale, not constant.
        confidence: As in `ldm_privacy.metrics`; so are errors.
    """
    tail = (1.0 - check_share("confidence", confidence)) / 2
    first, second = _checked(score_a, score_b)
    num_samples = len(first)
    if num_samples < 4:
        raise UserError(f"{num_samples} samples: a rank correlation with an interval needs at least 4.")
    for name, value in (("first", first), ("second", second)):
        if np.ptp(value) == 0:
            raise UserError(f"the {name} scores are all {value[0]}: constant scores have no ranks to agree with.")
    correlation = float(stats.spearmanr(first, second).statistic)
    one_exchange = 1.0 - 12.0 / (num_samples * (num_samples**2 - 1.0))
    # Between the two values only rounding is possible.
    if abs(correlation) > (1.0 + one_exchange) / 2:
        correlation = float(np.sign(correlation))
    centre = float(np.clip(correlation, -one_exchange, one_exchange))
    half_width = float(stats.norm.isf(tail)) * math.sqrt((1.0 + centre**2 / 2) / (num_samples - 3))
    lower, upper = math.tanh(math.atanh(centre) - half_width), math.tanh(math.atanh(centre) + half_width)
    return Estimate(correlation, min(lower, correlation), max(upper, correlation))


def _checked(score_a: Tensor, score_b: Tensor) -> tuple[np.ndarray, np.ndarray]:
    check_same_samples(score_a, score_b)
    both = []
    for score in (score_a, score_b):
        if score.ndim != 1 or not len(score):
            raise ValueError(f"scores must be one row (samples,), not {tuple(score.shape)}")
        check_finite(score, "score of sample", MEND)
        both.append(score.detach().cpu().double().numpy())
    return both[0], both[1]
