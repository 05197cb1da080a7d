"""Permuted AUROCs against a loop with scikit-learn, their closed variance, and null bands under the null hypothesis."""

import importlib
import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import roc_auc_score

from ldm_privacy.errors import UserError
from ldm_privacy.metrics import auroc, null_band, permuted_auroc, permuted_labels
from ldm_privacy.randomness import derive_seed

RARE = 1e-4


def make(generator, num_members, num_heldout, rows=(), decimals=None):
    is_member = generator.permutation(np.arange(num_members + num_heldout) < num_members)
    score = generator.normal(size=(*rows, is_member.size)) + 2.0 * is_member
    return torch.from_numpy(score if decimals is None else score.round(decimals)), torch.from_numpy(is_member)


@pytest.mark.parametrize("decimals", [None, 0])
@pytest.mark.parametrize("grouped", [False, True])
def test_permuted_auroc_equals_sklearn_on_the_same_labels(decimals, grouped, monkeypatch):
    monkeypatch.setattr(importlib.import_module("ldm_privacy.metrics.checks"), "NUMBERS_AT_ONCE", 200)
    generator = np.random.default_rng(0)
    score, is_member = make(generator, 31, 44, rows=(2, 3), decimals=decimals)
    score = 4000 + 100 * score
    group = None
    if grouped:
        group = torch.from_numpy(generator.integers(12, size=75)) + 100 * is_member
    area = permuted_auroc(score, is_member, num_permutations=20, group=group, seed=3)
    label = permuted_labels(is_member, num_permutations=20, group=group, seed=3)
    assert area.shape == (2, 3, 20)
    for i, j, k in itertools.product(range(2), range(3), range(20)):
        assert float(area[i, j, k]) == pytest.approx(roc_auc_score(label[k], score[i, j]), abs=1e-14)
        assert area[i, j, k] == auroc(score[i, j], label[k])


def test_labels_keep_the_number_of_members_and_every_sample_is_one_as_often():
    is_member = torch.arange(30) < 12
    label = permuted_labels(is_member, num_permutations=3000)
    assert (label.sum(dim=1) == 12).all()
    # 30 binomial counts, each within its own bounds.
    count = label.sum(dim=0).numpy()
    assert stats.binom.ppf(RARE / 60, 3000, 0.4) <= count.min()
    assert count.max() <= stats.binom.isf(RARE / 60, 3000, 0.4)


def test_groups_are_dealt_out_whole():
    generator = np.random.default_rng(1)
    group = torch.from_numpy(np.repeat(np.arange(20), generator.integers(1, 6, size=20)))
    group = group[torch.from_numpy(generator.permutation(len(group)))]
    is_member = group < 8
    label = permuted_labels(is_member, num_permutations=100, group=group)
    for row in label:
        members = set(group[row].tolist())
        assert len(members) == 8
        assert members.isdisjoint(group[~row].tolist())
    assert len(set(label.sum(dim=1).tolist())) > 1
    # Groups of one sample: the plain permutation of the sorted labels.
    single = permuted_labels(is_member, num_permutations=5, group=torch.arange(len(group)))
    assert torch.equal(single, permuted_labels(is_member, num_permutations=5))


def test_labels_are_those_that_the_seed_deals_out():
    is_member = torch.tensor([True, False, True, True, False, False, False])
    generator = torch.Generator().manual_seed(derive_seed("label permutation", 6))
    orders = [torch.randperm(7, generator=generator).tolist() for _ in range(4)]
    assert permuted_labels(is_member, num_permutations=4, seed=6).tolist() == [
        [bool(is_member[place]) for place in order] for order in orders
    ]
    one = permuted_labels(is_member, num_permutations=1, seed=6).tolist()
    assert one == permuted_labels(is_member, num_permutations=4, seed=6)[:1].tolist()
    # Groups in ascending order of their labels: 2 and 8 are members.
    group = torch.tensor([8, 5, 8, 2, 9, 5, 9])
    names, of_member = [2, 5, 8, 9], [True, False, True, False]
    generator = torch.Generator().manual_seed(derive_seed("label permutation", 6))
    orders = [torch.randperm(4, generator=generator).tolist() for _ in range(4)]
    assert permuted_labels(is_member, num_permutations=4, seed=6, group=group).tolist() == [
        [of_member[order[names.index(name)]] for name in group.tolist()] for order in orders
    ]


def test_seed_decides_the_permutations_and_scores_do_not():
    score, is_member = make(np.random.default_rng(2), 40, 50, rows=(3,))
    both = permuted_auroc(score, is_member, num_permutations=30, seed=4)
    assert torch.equal(both[1], permuted_auroc(score[1], is_member, num_permutations=30, seed=4))
    assert torch.equal(both, permuted_auroc(7 * score - 4000, is_member, num_permutations=30, seed=4))
    assert torch.equal(both[:, :10], permuted_auroc(score, is_member, num_permutations=10, seed=4))
    assert not torch.equal(both, permuted_auroc(score, is_member, num_permutations=30, seed=5))


def test_variance_is_the_closed_one():
    score, is_member = make(np.random.default_rng(3), 70, 110)
    num_permutations = 20_000
    area = permuted_auroc(score, is_member, num_permutations=num_permutations).numpy()
    variance = (70 + 110 + 1) / (12 * 70 * 110)
    assert abs(area.mean() - 0.5) <= 5 * math.sqrt(variance / num_permutations)
    # Nearly normal, so a sample variance has relative standard deviation sqrt(2 / P); the excess kurtosis is negative.
    assert abs(area.var(ddof=1) / variance - 1) <= 5 * math.sqrt(2 / num_permutations)


def test_variance_with_ties_is_the_tie_corrected_one():
    score, is_member = make(np.random.default_rng(4), 70, 110, decimals=0)
    num_permutations = 20_000
    area = permuted_auroc(score, is_member, num_permutations=num_permutations).numpy()
    _, tied = np.unique(score, return_counts=True)
    variance = (181 - (tied**3 - tied).sum() / (180 * 179)) / (12 * 70 * 110)
    assert abs(area.mean() - 0.5) <= 5 * math.sqrt(variance / num_permutations)
    assert abs(area.var(ddof=1) / variance - 1) <= 5 * math.sqrt(2 / num_permutations)
    assert (permuted_auroc(torch.zeros(180), is_member, num_permutations=5) == 0.5).all()


def test_band_and_p_value_are_counts():
    permuted = torch.arange(1, 200).double() / 200
    band = null_band(0.5, permuted)
    # (199 + 1) * 2.5 % = 5: the fifth from either end.
    assert (band.lower, band.upper) == (5 / 200, 195 / 200)
    assert band.p_value == (1 + 100) / 200
    assert null_band(2.0, permuted).p_value == 1 / 200
    assert null_band(0.0, permuted).p_value == 1.0
    few = null_band(0.5, permuted[:38])
    assert (few.lower, few.upper) == (0.0, 1.0)
    assert null_band(0.5, permuted[:39]).lower > 0.0


def test_null_scores_leave_their_band_as_rarely_as_stated():
    generator = np.random.default_rng(5)
    num_runs, outside, small = 600, 0, 0
    for seed in range(num_runs):
        _, is_member = make(generator, 25, 20)
        score = torch.from_numpy(generator.normal(size=45).round(1))
        value = float(auroc(score, is_member))
        band = null_band(value, permuted_auroc(score, is_member, num_permutations=39, seed=seed))
        outside += not band.lower <= value <= band.upper
        small += band.p_value <= 0.05
    assert outside <= stats.binom.isf(RARE, num_runs, 0.05)
    assert small <= stats.binom.isf(RARE, num_runs, 0.05)
    # Not for want of trying: the discrete test reaches its level up to ties.
    assert small >= stats.binom.ppf(RARE, num_runs, 0.04)


def test_choosing_anew_under_every_permutation_keeps_the_report_unbiased():
    generator = np.random.default_rng(6)
    score, is_member = make(generator, 40, 40, rows=(15,))
    reported = torch.from_numpy(generator.normal(size=(15, 80)))
    num_permutations = 4000
    best = permuted_auroc(score, is_member, num_permutations=num_permutations, seed=0).argmax(0, keepdim=True)
    area = permuted_auroc(reported, is_member, num_permutations=num_permutations, seed=1)
    chosen, peeked = area.gather(0, best).squeeze(0), area.amax(0)
    deviation = math.sqrt(81 / (12 * 40 * 40))
    assert abs(float(chosen.mean()) - 0.5) <= 5 * deviation / math.sqrt(num_permutations)
    assert float(peeked.mean()) > 0.5 + deviation


def test_bad_input_is_named():
    score, is_member = make(np.random.default_rng(7), 5, 5)
    with pytest.raises(UserError, match="num_permutations is 0"):
        permuted_auroc(score, is_member, num_permutations=0)
    with pytest.raises(UserError, match="group 0 has members and held-out"):
        permuted_auroc(score, is_member, group=torch.zeros(10, dtype=torch.int64))
    with pytest.raises(UserError, match="no members"):
        permuted_auroc(score, torch.zeros(10, dtype=torch.bool))
    with pytest.raises(UserError, match="confidence is 95"):
        null_band(0.5, torch.rand(10), 95)
