"""AUROC, its interval and the paired difference, against loops, scipy, scikit-learn, closed forms and simulation."""

import importlib
import math

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import roc_auc_score

from ldm_privacy.errors import UserError
from ldm_privacy.metrics import auroc, auroc_difference, auroc_interval, placements
from ldm_privacy.randomness import derive_seed
from tests.reference import metrics as reference

# Chance that a correct coverage fails a simulation test: one in ten thousand.
RARE = 1e-4


def make(generator, num_members, num_heldout, shift=1.0, decimals=None):
    """Normal scores in random sample order, optionally rounded so that there are ties."""
    is_member = generator.permutation(np.arange(num_members + num_heldout) < num_members)
    score = generator.normal(size=is_member.size) + shift * is_member
    return torch.from_numpy(score if decimals is None else score.round(decimals)), torch.from_numpy(is_member)


def sides(score, is_member):
    return score[is_member].numpy(), score[~is_member].numpy()


@pytest.mark.parametrize("decimals", [None, 1, 0])
def test_auroc_equals_the_loop_over_pairs_scipy_and_sklearn(decimals):
    score, is_member = make(np.random.default_rng(0), 37, 53, decimals=decimals)
    member, heldout = sides(score, is_member)
    value = float(auroc(score, is_member))
    assert value == pytest.approx(reference.auroc(member, heldout), abs=1e-15)
    assert value == pytest.approx(stats.mannwhitneyu(member, heldout).statistic / (37 * 53), abs=1e-15)
    assert value == pytest.approx(roc_auc_score(is_member, score), abs=1e-14)


def test_auroc_is_batched_over_leading_axes_and_chunks(monkeypatch):
    monkeypatch.setattr(importlib.import_module("ldm_privacy.metrics.checks"), "NUMBERS_AT_ONCE", 200)
    generator = np.random.default_rng(1)
    _, is_member = make(generator, 30, 40)
    score = torch.from_numpy(generator.normal(size=(2, 5, 70)))
    batched = auroc(score, is_member)
    assert batched.shape == (2, 5)
    assert batched.dtype == torch.float64
    for i in range(2):
        for j in range(5):
            assert batched[i, j] == auroc(score[i, j], is_member)


def test_auroc_survives_increasing_maps_at_magnitude_4000_exactly():
    score, is_member = make(np.random.default_rng(2), 200, 200)
    value = auroc(score, is_member)
    for mapped in (4000 + score, 4000 * score, -4000 + 17 * score, (score / 8).exp(), score**3, 4000 + score.atan()):
        assert auroc(mapped, is_member) == value


def test_auroc_ignores_sample_order_and_flips_with_labels_or_sign():
    score, is_member = make(np.random.default_rng(3), 41, 29, decimals=1)
    value = auroc(score, is_member)
    order = torch.from_numpy(np.random.default_rng(4).permutation(70))
    assert auroc(score[order], is_member[order]) == value
    assert float(auroc(score, ~is_member)) == pytest.approx(1 - float(value), abs=1e-15)
    assert float(auroc(-score, is_member)) == pytest.approx(1 - float(value), abs=1e-15)


def test_constant_scores_have_auroc_one_half_and_an_interval_around_it():
    is_member = torch.arange(80) < 40
    assert auroc(torch.full((80,), 7.0), is_member) == 0.5
    interval = auroc_interval(torch.full((80,), 7.0), is_member)
    assert interval.value == 0.5
    assert interval.lower == pytest.approx(0.05 ** (1 / 40) / 2)
    assert interval.lower + interval.upper == pytest.approx(1.0)


@pytest.mark.parametrize("decimals", [None, 0])
def test_placements_equal_the_table_and_average_to_the_auroc(decimals):
    score, is_member = make(np.random.default_rng(5), 31, 44, decimals=decimals)
    v10, v01 = placements(score, is_member)
    slow10, slow01 = reference.placements(*sides(score, is_member))
    np.testing.assert_allclose(v10, slow10, atol=1e-15)
    np.testing.assert_allclose(v01, slow01, atol=1e-15)
    assert float(v10.mean()) == pytest.approx(float(auroc(score, is_member)), abs=1e-14)


@pytest.mark.parametrize("decimals", [None, 0])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_interval_is_delong_on_the_logit_scale(decimals, confidence):
    score, is_member = make(np.random.default_rng(6), 60, 45, decimals=decimals)
    interval = auroc_interval(score, is_member, confidence=confidence)
    lower, upper = reference.delong_logit_interval(*sides(score, is_member), confidence)
    assert (interval.lower, interval.upper) == pytest.approx((lower, upper), abs=1e-12)
    assert 0 < interval.lower < interval.value < interval.upper < 1


@pytest.mark.parametrize("confidence", [0.5, 0.95])
def test_interval_of_a_few_samples_is_the_one_of_the_docs(confidence):
    generator = np.random.default_rng(21)
    for _ in range(80):
        num_members, num_heldout = generator.integers(1, 6, size=2)
        score, is_member = make(generator, num_members, num_heldout, decimals=0)
        result = auroc_interval(score, is_member, confidence=confidence)
        expected = reference.auroc_interval(*sides(score, is_member), confidence)
        assert (result.lower, result.upper) == pytest.approx(expected, abs=1e-12)
        assert result.value == pytest.approx(reference.auroc(*sides(score, is_member)), abs=1e-15)


def test_without_spread_or_with_one_of_them_groups_are_what_counts():
    is_member = torch.arange(30) < 12
    group = torch.where(is_member, torch.arange(30) // 3, 100 + torch.arange(30) // 2)
    exact = reference.auroc_interval(np.ones(4), np.zeros(9), 0.9)
    result = auroc_interval(is_member.double(), is_member, group=group, confidence=0.9)
    assert (result.lower, result.upper) == pytest.approx(exact, abs=1e-12)
    exact = reference.auroc_interval(np.zeros(4), np.zeros(9), 0.9)
    result = auroc_interval(torch.zeros(30), is_member, group=group, confidence=0.9)
    assert (result.lower, result.upper) == pytest.approx(exact, abs=1e-12)
    one = auroc_interval(torch.arange(30) % 7, is_member, group=torch.where(is_member, 5, group))
    assert (one.lower, one.upper) == (0.0, 1.0)


def test_separated_samples_get_the_exact_bound_of_disjoint_pairs():
    is_member = torch.arange(150) < 50
    perfect = auroc_interval(is_member.double(), is_member)
    reverse = auroc_interval(-is_member.double(), is_member)
    # Fifty disjoint pairs, all in order: the exact binomial bound, and close to the rule of three.
    exact = stats.binomtest(50, 50).proportion_ci(0.95, method="exact").low
    assert (perfect.value, perfect.upper) == (1.0, 1.0)
    assert perfect.lower == pytest.approx(exact, abs=1e-12)
    assert (reverse.value, reverse.lower, reverse.upper) == pytest.approx((0.0, 0.0, 1 - exact), abs=1e-12)


def test_separated_bound_covers_in_the_worst_case():
    # With probability AUROC a member lies above everything, else below everything: separation is as likely as it can be.
    generator = np.random.default_rng(7)
    is_member = torch.arange(40) < 20
    area, num_runs = 0.83, 1000  # 0.83^20 = 2.4 %, just inside the 2.5 % that may be missed
    misses = 0
    for _ in range(num_runs):
        member = np.where(generator.random(20) < area, 10.0, -10.0)
        interval = auroc_interval(torch.from_numpy(np.append(member, generator.normal(size=20))), is_member)
        misses += interval.value == 1.0 and area < interval.lower
        assert interval.value < 1.0 or interval.lower <= 0.8316
    assert misses <= stats.binom.isf(RARE, num_runs, 0.025)


def test_one_sample_on_a_side_bounds_nothing():
    interval = auroc_interval(torch.tensor([1.0, 0.0, 2.0]), torch.tensor([True, False, False]))
    assert (interval.value, interval.lower, interval.upper) == (0.5, 0.0, 1.0)


@pytest.mark.parametrize("shift", [0.0, 1.0, 2.0])
def test_interval_covers(shift):
    generator = np.random.default_rng(8)
    num_runs, truth = 500, reference.normal_truth(shift)["auroc"]
    misses = 0
    for _ in range(num_runs):
        interval = auroc_interval(*make(generator, 100, 100, shift))
        misses += not interval.lower <= truth <= interval.upper
    assert stats.binom.ppf(RARE, num_runs, 0.05) <= misses <= stats.binom.isf(RARE, num_runs, 0.05)


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_group_bootstrap_equals_pooling_resampled_groups(confidence):
    generator = np.random.default_rng(9)
    label = np.repeat(np.arange(40), generator.integers(1, 5, size=40))
    level = generator.normal(size=40)[label]
    is_member = label < 18
    score = (level + 0.5 * generator.normal(size=label.size) + is_member).round(0)
    score[label == 3] = -9.0  # below every held-out sample
    interval = auroc_interval(
        *(torch.from_numpy(each) for each in (score, is_member)),
        **{"group": torch.from_numpy(label), "num_bootstrap": 300, "confidence": confidence, "seed": 5},
    )
    groups = [score[label == index] for index in range(40)]
    stream = np.random.default_rng(derive_seed("bootstrap auroc", 5))
    areas = reference.naive_group_bootstrap_auroc(groups[:18], groups[18:], 300, stream)
    ends = np.quantile(areas, [(1 - confidence) / 2, (1 + confidence) / 2])
    assert (interval.lower, interval.upper) == pytest.approx(tuple(ends), abs=1e-12)
    assert interval.value == float(auroc(torch.from_numpy(score), torch.from_numpy(is_member)))


def test_interval_of_copies_widens_only_when_the_copies_are_named_as_groups():
    score, is_member = make(np.random.default_rng(10), 60, 60)
    copies, is_member_copy = score.repeat_interleave(9), is_member.repeat_interleave(9)
    group = torch.arange(120).repeat_interleave(9)
    width = {
        "single": auroc_interval(score, is_member),
        "copies": auroc_interval(copies, is_member_copy),
        "groups": auroc_interval(copies, is_member_copy, group=group, num_bootstrap=2000),
    }
    width = {name: interval.upper - interval.lower for name, interval in width.items()}
    assert width["copies"] == pytest.approx(width["single"] / 3, rel=0.02)
    assert width["groups"] == pytest.approx(width["single"], rel=0.1)


def test_seed_decides_the_group_bootstrap():
    score, is_member = make(np.random.default_rng(11), 30, 30)
    group = torch.arange(60)
    first, again, other = (auroc_interval(score, is_member, group=group, seed=seed) for seed in (3, 3, 4))
    assert first == again
    assert first != other


@pytest.mark.parametrize("decimals", [None, 0])
def test_paired_difference_is_delong(decimals):
    score_a, is_member = make(np.random.default_rng(12), 50, 70, decimals=decimals)
    score_b = 0.7 * score_a + torch.from_numpy(np.random.default_rng(13).normal(size=120))
    value, deviation = reference.paired_delong(*sides(score_a, is_member), *sides(score_b, is_member))
    result = auroc_difference(score_a, score_b, is_member)
    width = stats.norm.ppf(0.975) * deviation
    assert (result.value, result.lower, result.upper) == pytest.approx((value, value - width, value + width), abs=1e-12)
    assert result.p_value == pytest.approx(2 * stats.norm.sf(abs(value) / deviation))
    one_sided = auroc_difference(score_a, score_b, is_member, alternative="greater")
    assert one_sided.lower == pytest.approx(value - stats.norm.ppf(0.95) * deviation, abs=1e-12)
    assert one_sided.upper == 1.0
    assert one_sided.p_value == pytest.approx(stats.norm.sf(value / deviation))


def test_paired_difference_is_antisymmetric_and_narrower_than_unpaired():
    score_a, is_member = make(np.random.default_rng(14), 80, 80)
    score_b = score_a + 0.1 * torch.from_numpy(np.random.default_rng(15).normal(size=160))
    forward, backward = auroc_difference(score_a, score_b, is_member), auroc_difference(score_b, score_a, is_member)
    assert (forward.value, forward.lower) == pytest.approx((-backward.value, -backward.upper), abs=1e-15)
    assert forward.p_value == pytest.approx(backward.p_value)
    single = auroc_interval(score_a, is_member)
    assert forward.upper - forward.lower < 0.5 * (single.upper - single.lower)


def test_paired_difference_with_every_sample_its_own_group_is_the_plain_one():
    score_a, is_member = make(np.random.default_rng(16), 40, 50)
    score_b = torch.from_numpy(np.random.default_rng(17).normal(size=90))
    plain = auroc_difference(score_a, score_b, is_member)
    singles = auroc_difference(score_a, score_b, is_member, group=torch.arange(90))
    assert singles.lower == pytest.approx(plain.lower, abs=1e-12)
    copies = [value.repeat_interleave(4) for value in (score_a, score_b, is_member)]
    grouped = auroc_difference(*copies, group=torch.arange(90).repeat_interleave(4))
    assert (grouped.lower, grouped.upper) == pytest.approx((plain.lower, plain.upper), abs=1e-12)


def test_identical_scores_differ_by_nothing():
    score, is_member = make(np.random.default_rng(18), 20, 20)
    result = auroc_difference(score, score.clone(), is_member)
    assert (result.value, result.lower, result.upper, result.p_value) == (0.0, 0.0, 0.0, 1.0)
    assert auroc_difference(score, score, is_member, alternative="greater").lower == 0.0


@pytest.mark.parametrize("alternative", ["two-sided", "greater"])
@pytest.mark.parametrize("confidence", [0.5, 0.95])
def test_paired_difference_of_a_few_samples_is_the_one_of_the_docs(alternative, confidence):
    generator = np.random.default_rng(22)
    options = {"confidence": confidence, "alternative": alternative}
    for index in range(80):
        num_members, num_heldout = generator.integers(1, 6, size=2)
        score_a, is_member = make(generator, num_members, num_heldout, decimals=0)
        score_b = torch.from_numpy(generator.normal(size=len(score_a)).round() * generator.integers(0, 2))
        group = torch.arange(len(score_a))
        if index % 2:
            group = torch.from_numpy(generator.integers(3, size=len(group))) + 10 * is_member
        scores = [*sides(score_a, is_member), *sides(score_b, is_member), *sides(group, is_member)]
        expected = reference.paired_difference(*scores, confidence, alternative == "two-sided")
        result = auroc_difference(score_a, score_b, is_member, group=group if index % 2 else None, **options)
        assert (result.lower, result.upper, result.p_value) == pytest.approx(expected, abs=1e-12)


def test_difference_without_variance_has_exact_bounds_that_agree_with_the_p_value():
    is_member = torch.arange(24) < 12
    perfect, constant = is_member.double(), torch.zeros(24)
    against_reverse = auroc_difference(perfect, -perfect, is_member)
    assert (against_reverse.value, against_reverse.upper) == (1.0, 1.0)
    assert against_reverse.lower == pytest.approx(2 * 0.025 ** (1 / 12) - 1)
    assert against_reverse.p_value == pytest.approx(2 * 0.5**12)
    # The bound touches 0 exactly at the confidence that the p-value names.
    against_constant = auroc_difference(perfect, constant, is_member)
    assert against_constant.value == 0.5
    at_p = auroc_difference(perfect, constant, is_member, confidence=1 - against_constant.p_value)
    assert at_p.lower == pytest.approx(0.0, abs=1e-12)
    both_perfect = auroc_difference(perfect, 3 * perfect, is_member)
    assert both_perfect.lower < 0 < both_perfect.upper
    assert both_perfect.p_value == 1.0
    assert auroc_difference(-perfect, perfect, is_member, alternative="greater").p_value == 1.0


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_paired_difference_covers(shift):
    generator = np.random.default_rng(19)
    num_runs, misses, rejections = 400, 0, 0
    truth = reference.normal_truth(shift)["auroc"] - reference.normal_truth(0.6 * shift)["auroc"]
    for _ in range(num_runs):
        score_a, is_member = make(generator, 100, 100, shift)
        score_b = 0.6 * score_a + 0.8 * torch.from_numpy(generator.normal(size=200))
        result = auroc_difference(score_a, score_b, is_member)
        misses += not result.lower <= truth <= result.upper
        rejections += result.p_value < 0.05
        assert (result.p_value < 0.05) == (not result.lower <= 0 <= result.upper)
    assert misses <= stats.binom.isf(RARE, num_runs, 0.05)
    if shift == 0.0:
        assert rejections <= stats.binom.isf(RARE, num_runs, 0.05)


def test_permuted_labels_stay_inside_their_null_band():
    generator = np.random.default_rng(20)
    score, is_member = make(generator, 150, 150, shift=2.0)
    p_values = []
    for _ in range(200):
        area = float(auroc(score, torch.from_numpy(generator.permutation(is_member.numpy()))))
        deviation = math.sqrt((150 + 150 + 1) / (12 * 150 * 150))
        p_values.append(2 * stats.norm.sf(abs(area - 0.5) / deviation))
    assert stats.kstest(p_values, "uniform").pvalue > RARE


def test_bad_input_is_named():
    is_member = torch.tensor([True, True, False])
    good = torch.tensor([1.0, 2.0, 3.0])
    with pytest.raises(UserError, match="no held-out samples among the 3"):
        auroc(good, torch.ones(3, dtype=torch.bool))
    with pytest.raises(UserError, match="no members among the 3"):
        auroc_interval(good, torch.zeros(3, dtype=torch.bool))
    with pytest.raises(UserError, match="2 membership scores for 3 samples"):
        auroc(good[:2], is_member)
    with pytest.raises(UserError, match="paired scores"):
        auroc_difference(good, good.expand(2, 3), is_member)
    with pytest.raises(UserError, match="confidence is 95"):
        auroc_interval(good, is_member, confidence=95)
    with pytest.raises(UserError, match="group 8 has members and held-out"):
        auroc_interval(good, is_member, group=torch.tensor([7, 8, 8]))
    with pytest.raises(UserError, match="2 group labels for 3 samples"):
        auroc_interval(good, is_member, group=torch.tensor([7, 8]))
    with pytest.raises(ValueError, match="bool tensor"):
        auroc(good, torch.tensor([1, 1, 0]))
