"""The difference of two means against SciPy's Welch interval, of samples and of groups."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from ldm_privacy.metrics import mean_difference


@pytest.fixture
def sample():
    generator = np.random.default_rng(0)
    value = torch.from_numpy(generator.lognormal(size=50))
    is_member = torch.from_numpy(generator.permutation(50) < 18)
    return value + is_member, is_member


def test_it_is_welchs_interval(sample):
    value, is_member = sample
    sides = value[is_member].numpy(), value[~is_member].numpy()
    found, welch = mean_difference(*sample, confidence=0.9), stats.ttest_ind(*sides, equal_var=False).confidence_interval(0.9)
    assert found.value == pytest.approx(sides[0].mean() - sides[1].mean())
    assert (found.lower, found.upper) == pytest.approx((welch.low, welch.high))
    one_sided = mean_difference(*sample, confidence=0.9, is_one_sided=True)
    welch = stats.ttest_ind(*sides, equal_var=False, alternative="greater").confidence_interval(0.9)
    assert (one_sided.value, one_sided.lower) == (found.value, pytest.approx(welch.low))
    assert one_sided.upper == math.inf


def test_groups_of_one_size_count_as_their_means(sample):
    value, is_member = sample
    noise = torch.from_numpy(np.random.default_rng(1).normal(size=50))
    values, members = torch.stack([value - noise, value + noise], 1).flatten(), is_member.repeat_interleave(2)
    grouped = mean_difference(values, members, group=torch.arange(50).repeat_interleave(2))
    plain = mean_difference(value, is_member)
    assert (grouped.lower, grouped.value, grouped.upper) == pytest.approx((plain.lower, plain.value, plain.upper))


def test_what_has_no_variance_and_what_says_nothing_of_it():
    found = mean_difference(torch.tensor([2.0, 2.0, 1.0, 1.0]), torch.tensor([True, True, False, False]))
    assert (found.lower, found.value, found.upper) == (1.0, 1.0, 1.0)
    lonely = mean_difference(torch.tensor([2.0, 1.0, 3.0]), torch.tensor([True, False, False]))
    assert (lonely.lower, lonely.value, lonely.upper) == (-math.inf, 0.0, math.inf)
