"""Rank agreement against its definition and known correlations; overlap of tops against sets and random tie breaking."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from ldm_privacy.errors import UserError
from ldm_privacy.metrics import rank_agreement

RARE = 1e-4


def pair(generator, num_samples, correlation):
    first = generator.normal(size=num_samples)
    second = correlation * first + math.sqrt(1 - correlation**2) * generator.normal(size=num_samples)
    return torch.from_numpy(first), torch.from_numpy(second)


@pytest.mark.parametrize("decimals", [3, 0])
def test_agreement_is_the_correlation_of_mid_ranks(decimals):
    first, second = (score.round(decimals=decimals) for score in pair(np.random.default_rng(0), 90, 0.6))
    result = rank_agreement(first, second, confidence=0.9)
    value = np.corrcoef(stats.rankdata(first), stats.rankdata(second))[0, 1]
    width = stats.norm.ppf(0.95) * math.sqrt((1 + value**2 / 2) / 87)
    assert result.value == pytest.approx(value)
    assert (result.lower, result.upper) == pytest.approx(
        (math.tanh(math.atanh(value) - width), math.tanh(math.atanh(value) + width))
    )


def test_agreement_survives_increasing_maps_and_flips_with_the_sign():
    first, second = pair(np.random.default_rng(1), 50, 0.4)
    result = rank_agreement(first, second)
    assert rank_agreement(4000 + 10 * first, second.exp()) == result
    flipped = rank_agreement(first, -second)
    assert (flipped.value, flipped.lower, flipped.upper) == pytest.approx((-result.value, -result.upper, -result.lower))
    assert rank_agreement(second, first).value == pytest.approx(result.value)


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
def test_interval_covers(correlation):
    generator = np.random.default_rng(2)
    truth = 6 / math.pi * math.asin(correlation / 2)
    num_runs, misses = 300, 0
    for _ in range(num_runs):
        result = rank_agreement(*pair(generator, 80, correlation))
        misses += not result.lower <= truth <= result.upper
    assert misses <= stats.binom.isf(RARE, num_runs, 0.05)


def test_perfect_agreement_is_no_certainty_about_few_samples():
    score = torch.arange(10.0)
    perfect, reverse = rank_agreement(score, score.exp()), rank_agreement(score, -score)
    assert (perfect.value, perfect.upper) == (1.0, 1.0)
    swap = 1 - 12 / 990
    width = stats.norm.isf(0.025) * math.sqrt((1 + swap**2 / 2) / 7)
    assert perfect.lower == pytest.approx(math.tanh(math.atanh(swap) - width))
    assert (reverse.value, reverse.lower, reverse.upper) == pytest.approx((-1.0, -1.0, -perfect.lower))
    swapped = score.clone()
    swapped[[3, 4]] = score[[4, 3]]
    assert rank_agreement(score, swapped).lower == pytest.approx(perfect.lower)


def test_four_samples_have_an_interval():
    first, second = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([2.0, 1.0, 4.0, 3.0])
    result = rank_agreement(first, second)
    width = stats.norm.isf(0.025) * math.sqrt(1 + 0.6**2 / 2)
    assert (result.value, result.upper) == pytest.approx((0.6, math.tanh(math.atanh(0.6) + width)))


def test_bad_input_is_named():
    good = torch.arange(5.0)
    with pytest.raises(UserError, match=r"^the second scores are all 1"):
        rank_agreement(good, torch.ones(5))
    with pytest.raises(UserError, match=r"^the first scores are all 1"):
        rank_agreement(torch.ones(5), good)
    with pytest.raises(UserError, match="3 samples"):
        rank_agreement(good[:3], good[:3])
    with pytest.raises(UserError, match="paired scores"):
        rank_agreement(good, good[:4])
    with pytest.raises(UserError, match=r"^score of sample 1 is inf: take the sample out, or mend the attack"):
        rank_agreement(good, torch.tensor([0.0, torch.inf, 1.0, 2.0, 3.0]))
    with pytest.raises(ValueError, match="one row"):
        rank_agreement(good.expand(2, 5), good.expand(2, 5))
