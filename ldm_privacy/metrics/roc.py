"""The receiver operating characteristic."""

import torch
from torch import Tensor

from ldm_privacy.metrics.checks import check_scores


def roc_curve(score: Tensor, is_member: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The ROC curve at every distinct score, for the rule "member where score >= threshold".

    The (samples,) scores are used as they are: nothing is squashed into [0, 1], which would merge large scores.

    Returns:
        FPR, TPR (both rising from 0 to 1) and thresholds (falling, the first infinite), each (distinct scores + 1,)
        float64. Arguments and errors: see `ldm_privacy.metrics`.
    """
    score, is_member = check_scores(score, is_member)
    ordered, order = score.sort(descending=True)
    threshold, num_tied = torch.unique_consecutive(ordered, return_counts=True)
    last = num_tied.cumsum(0) - 1
    num_true = is_member[order].cumsum(0)[last]
    num_false = last + 1 - num_true
    origin = score.new_zeros(1)
    fpr = torch.cat([origin, num_false.double() / num_false[-1]])
    tpr = torch.cat([origin, num_true.double() / num_true[-1]])
    return fpr, tpr, torch.cat([origin + torch.inf, threshold])
