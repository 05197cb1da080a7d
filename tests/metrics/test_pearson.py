"""Pearson's correlation against SciPy, its bounds against a bootstrap in a loop."""

import numpy as np
import pytest
import torch
from scipy import stats

from ldm_privacy.errors import UserError
from ldm_privacy.metrics import pearson
from ldm_privacy.metrics.resampling import SideResampler, bootstrap_generator


def pair(num_samples, seed=0, correlation=0.6):
    first, noise = np.random.default_rng(seed).normal(size=(2, num_samples))
    return torch.from_numpy(first + 3.0), torch.from_numpy(correlation * first + (1 - correlation**2) ** 0.5 * noise - 7.0)


def in_a_loop(first, second, num_bootstrap, seed, confidence, group=None):
    """Every resample written out, sample by sample; those in which one side is constant have no correlation."""
    resampler, generator = SideResampler(len(first), group), bootstrap_generator("pearson", seed)
    found = []
    for _ in range(num_bootstrap):
        rows = np.repeat(np.arange(len(first)), resampler.draw(generator))
        if min(len(set(each[rows].tolist())) for each in (first, second)) > 1:
            found.append(stats.pearsonr(first[rows], second[rows]).statistic)
    return np.quantile(found, [(1 - confidence) / 2, (1 + confidence) / 2])


@pytest.mark.parametrize("group", [None, np.arange(30) // 4])
def test_it_is_scipys_with_the_percentiles_of_the_resamples(group):
    first, second = pair(30)
    options = {"num_bootstrap": 60, "seed": 3, "confidence": 0.8}
    found = pearson(first, second, group=None if group is None else torch.from_numpy(group), **options)
    assert found.value == pytest.approx(stats.pearsonr(first, second).statistic)
    assert (found.lower, found.upper) == pytest.approx(in_a_loop(first.numpy(), second.numpy(), group=group, **options))


def test_shift_and_scale_change_nothing_and_a_mirrored_side_turns_it():
    first, second = pair(25)
    found, moved = pearson(first, second), pearson(1e-3 * first - 40, second * 1e4)
    assert (moved.lower, moved.value, moved.upper) == pytest.approx((found.lower, found.value, found.upper))
    turned = pearson(first, -second)
    assert (turned.lower, turned.value, turned.upper) == pytest.approx((-found.upper, -found.value, -found.lower))
    assert pearson(first, first).value == pearson(first, first).upper == 1.0
    assert pearson(first.half(), second.float()).value == pytest.approx(found.value, abs=1e-2)


def test_resamples_without_a_correlation_are_left_out():
    first, second = torch.tensor([0.0, 0.0, 0.0, 0.3]), torch.tensor([0.1, 0.2, 0.4, 0.1])
    options = {"num_bootstrap": 200, "seed": 0, "confidence": 0.9}
    found = pearson(first, second, **options)
    assert (found.lower, found.upper) == pytest.approx(in_a_loop(first.double().numpy(), second.double().numpy(), **options))
    # 81 of 256 resamples leave the fourth sample out; with both sides far from 0 that is a constant up to rounding.
    far = pearson(first.double() + 1e6, second.double() + 1e6, **options)
    assert (far.lower, far.upper) == pytest.approx((found.lower, found.upper), abs=1e-6)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("constant", [0.1, 0.3, 0.7])
def test_what_rounding_leaves_of_a_constant_is_no_spread_at_any_scale(constant, turned):
    # Of 10 samples that are alike but for one, a third of the resamples are constant up to rounding.
    lonely, other = torch.full((10,), constant).double(), torch.from_numpy(np.random.default_rng(0).normal(size=10))
    lonely[7] += 0.55
    first, second = (other, lonely) if turned else (lonely, other)
    options = {"num_bootstrap": 200, "seed": 0, "confidence": 0.5}
    bounds = in_a_loop(first.numpy(), second.numpy(), **options)
    with np.errstate(all="raise"):
        found = pearson(first, second, **options)
        assert (found.lower, found.upper) == pytest.approx(bounds)
        for scale in (2.0**-60, 2.0**60):  # powers of two change no digit
            assert pearson(scale * first, second, **options) == found == pearson(first, scale * second, **options)


def test_no_correlation_lies_beyond_one():
    for seed in range(10):
        first, _ = pair(15, seed=seed)
        for slope in (-0.3, 0.3):
            found = pearson(first, slope * first, num_bootstrap=100)
            assert -1 <= found.lower <= found.upper <= 1
            assert (found.lower, found.value, found.upper) == pytest.approx(3 * (np.sign(slope),))


def test_without_any_resample_the_bounds_say_nothing():
    group = torch.tensor([0, 0, 0, 0])
    found = pearson(torch.tensor([0.0, 0.0, 1.0, 1.0]), torch.tensor([0.0, 1.0, 0.0, 3.0]), group=group, num_bootstrap=2)
    assert found.lower == found.upper == pytest.approx(found.value)
    lonely = pearson(torch.tensor([0.0, 0.0, 0.0, 1.0]), torch.arange(4.0), num_bootstrap=1, seed=4)  # which lacks the fourth
    assert (lonely.lower, lonely.upper) == (-1.0, 1.0)


def test_bad_input_is_named():
    first, second = pair(10)
    with pytest.raises(UserError, match=r"^3 samples: a correlation with an interval needs at least 4"):
        pearson(first[:3], second[:3])
    assert pearson(first[:4], second[:4]).value == pytest.approx(stats.pearsonr(first[:4], second[:4]).statistic)
    with pytest.raises(UserError, match=r"^the second numbers are all 2\.0: constant numbers correlate with nothing"):
        pearson(first, torch.full((10,), 2.0))
    with pytest.raises(UserError, match=r"^the first numbers are all 0\.0"):
        pearson(torch.zeros(10), second)
    with pytest.raises(UserError, match=r"^the second number of sample 4 is nan.*take the sample out\.$"):
        pearson(first, second.index_fill(0, torch.tensor(4), float("nan")))
    with pytest.raises(UserError, match="confidence is 2"):
        pearson(first, second, confidence=2)
    with pytest.raises(UserError):
        pearson(first, second[:9])
