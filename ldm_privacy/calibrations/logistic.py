"""Logistic regression on standardised features, fitted on those samples that choose."""

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ldm_privacy.calibrations.base import Calibrated, Known
from ldm_privacy.errors import UserError

MOST_FEATURES = 100


def log_odds(features: Mapping[str, Tensor], known: Known, *, inverse_penalty: float) -> Calibrated:
    """Log-odds of membership: `intercept + sum_j coefficient_j (feature_j - mean_j) / std_j`.

    Means, standard deviations and coefficients are of the samples that choose; an L2 penalty holds the coefficients. No more
    features are fitted than `known.capacity` or `MOST_FEATURES`: the first ones are taken, so they come in the order of their
    importance; of a single one nothing is fitted, it is the score. No randomness.

    Args:
        features: By name, (samples,) each.
        known: Of the audit.
        inverse_penalty: C of scikit-learn, above 0 and finite; smaller = stronger penalty.

    Raises:
        UserError: `inverse_penalty` is out of range; a feature is not finite.
    """
    from sklearn.linear_model import LogisticRegression

    check_penalty(inverse_penalty)
    names = list(features)[: min(known.capacity, MOST_FEATURES)]
    for name in names:
        if not (finite := features[name].isfinite()).all():
            raise UserError(f"{known.key}: {name} of the sample at place {int((~finite).nonzero()[0])} is not finite.")
    if len(names) == 1:
        return Calibrated(features[names[0]][None], {})
    values = torch.stack([features[name].double() for name in names], dim=1).numpy()
    chooses, label = known.chooses.numpy(), known.is_member[known.chooses].numpy()
    mean, std = values[chooses].mean(0), values[chooses].std(0)
    # A constant feature says nothing: left at 0, it gets the coefficient 0.
    standard = (values - mean) / np.where(std > 0, std, 1.0)
    model = LogisticRegression(C=inverse_penalty, max_iter=1000).fit(standard[chooses], label)
    score = torch.from_numpy(standard @ model.coef_[0] + model.intercept_[0])
    return Calibrated(score[None], dict(zip(names, model.coef_[0].tolist())), num_fitted=len(names))


def check_penalty(inverse_penalty: float) -> float:
    """`inverse_penalty` where it is above 0 and finite. Raises UserError otherwise."""
    if not 0 < inverse_penalty < math.inf:
        raise UserError(f"inverse_penalty: {inverse_penalty}; it must be above 0 and finite.")
    return inverse_penalty
