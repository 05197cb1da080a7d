"""Means over trainings: two kinds of chance, the wider interval."""

import math

import numpy as np
import pytest
from scipy import stats

from ldm_privacy.evidence.over_seeds import over_seeds


def test_both_intervals_are_those_of_the_textbook():
    values, errors = [0.10, 0.16, 0.13], [0.03, 0.02, 0.06]
    over = over_seeds(dict(enumerate(zip(values, errors))), confidence=0.9)
    reach = stats.norm.ppf(0.95) * math.sqrt(sum(error**2 for error in errors)) / 3
    assert (over.samples.lower, over.samples.upper) == pytest.approx((0.13 - reach, 0.13 + reach))
    expected = stats.t.interval(0.9, 2, loc=np.mean(values), scale=stats.sem(values))
    assert (over.trainings.lower, over.trainings.upper) == pytest.approx(expected)
    assert over.deviation == pytest.approx(0.03)
    assert over.range == (0.10, 0.16)
    assert over.by_seed[1].upper == pytest.approx(0.16 + stats.norm.ppf(0.95) * 0.02)


@pytest.mark.parametrize(
    ("values", "error", "wider", "is_certain"),
    [
        ((0.10, 0.11, 0.12), 0.001, "trainings", True),
        ((0.10, 0.11, 0.12), 0.05, "samples", True),
        ((0.10, 0.11, 0.12), 0.10, "samples", False),  # over the samples alone it may be nothing
        ((0.02, 0.11, 0.20), 0.001, "trainings", False),  # over the trainings alone it may be nothing
        ((-0.10, -0.11, -0.12), 0.001, "trainings", True),
    ],
)
def test_the_wider_interval_is_shown_and_both_must_leave_0_out(values, error, wider, is_certain):
    over = over_seeds({seed: (value, error) for seed, value in enumerate(values)})
    assert over.mean == getattr(over, wider)
    assert over.is_certain is is_certain


def test_one_training_says_nothing_of_another():
    over = over_seeds({4: (0.5, 0.001)})
    assert over.trainings is None
    assert math.isnan(over.deviation)
    assert over.mean == over.samples
    assert not over.is_certain


def test_bounds_stay_where_the_number_ends():
    over = over_seeds({0: (0.99, 0.2), 1: (0.2, 0.001)}).within(0.0, 1.0)
    for each in (over.mean, over.trainings, over.by_seed[0]):
        assert 0.0 <= each.lower <= each.upper <= 1.0
    assert over.by_seed[0].value == 0.99
