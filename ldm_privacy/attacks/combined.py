"""One score from all statistics: logistic regression, fitted on the calibration half."""

from collections.abc import Mapping
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from ldm_privacy.errors import UserError
from ldm_privacy.types import MembershipScore

Key = TypeVar("Key")


class CombinedAttack(Generic[Key]):
    """Logistic regression over statistics that are standardised by their mean and standard deviation on the calibration half.

    log-odds of membership = intercept + sum_j coefficient_j (statistic_j - mean_j) / std_j, with an L2 penalty on the
    coefficients. Statistics may come raw or oriented: the fit finds the sign. No network passes, no randomness.

    `inverse_penalty`, above 0, is C of scikit-learn: smaller = stronger penalty.
    """

    def __init__(self, *, inverse_penalty: float = 1.0):
        if not inverse_penalty > 0:
            raise UserError(f"combined attack: inverse_penalty is {inverse_penalty}; it must be above 0.")
        self.inverse_penalty = inverse_penalty
        self.coefficients: dict[Key, Tensor] = {}
        """Per key (timesteps,), in units of log-odds per standard deviation; empty before `fit`."""
        self.intercept = 0.0

    def fit(self, statistics: Mapping[Key, Tensor], is_member: Tensor, is_calibration: Tensor) -> "CombinedAttack[Key]":
        """Fit on the calibration half; nothing of the other samples is looked at.

        Args:
            statistics: Each (timesteps, samples).
            is_member, is_calibration: (samples,) bool.

        Raises:
            UserError: A class is missing on the calibration half, or a statistic is not finite.
        """
        from sklearn.linear_model import LogisticRegression

        half = is_calibration.cpu().numpy()
        features, label = _features(statistics)[half], is_member.cpu().numpy()[half]
        if label.all() or not label.any():
            missing = "held-out samples" if len(label) and label.all() else "members"
            raise UserError(f"combined attack: no {missing} on the calibration half; it needs both.")
        self._mean, std = features.mean(0), features.std(0)
        # A constant statistic says nothing: left at 0, it gets the coefficient 0.
        self._std = np.where(std > 0, std, 1.0)
        model = LogisticRegression(C=self.inverse_penalty, max_iter=1000)
        model.fit((features - self._mean) / self._std, label)
        self.intercept = float(model.intercept_[0])
        lengths = [len(statistic) for statistic in statistics.values()]
        self.coefficients = dict(zip(statistics, torch.from_numpy(model.coef_[0]).split(lengths)))
        return self

    def membership_scores(self, statistics: Mapping[Key, Tensor]) -> MembershipScore:
        """(samples,) float64 log-odds of membership; higher = member. Report them on the samples not calibrated on.

        Raises:
            ValueError: Not fitted, or other statistics than in `fit`.
        """
        fitted = {key: len(value) for key, value in self.coefficients.items()}
        if {key: len(value) for key, value in statistics.items()} != fitted:
            raise ValueError("the combined attack was not fitted on these statistics: fit it on the same keys and timesteps")
        features = (_features({key: statistics[key] for key in fitted}) - self._mean) / self._std
        return torch.from_numpy(features) @ torch.cat(list(self.coefficients.values())) + self.intercept


def _features(statistics: Mapping[Key, Tensor]) -> np.ndarray:
    """(samples, all timesteps of all statistics) float64."""
    if not statistics:
        raise UserError("combined attack: no statistics given; name at least one attack.")
    for key, statistic in statistics.items():
        if not torch.isfinite(statistic).all():
            place = int((~torch.isfinite(statistic)).nonzero()[0, -1])
            raise UserError(f"combined attack: the statistic {key} of the sample at place {place} is not finite.")
    return torch.cat([statistic.double().cpu() for statistic in statistics.values()]).T.numpy()
