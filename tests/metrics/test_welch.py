"""Data-set verdict against formulas written out, its error rate by simulation, and Holm's adjustment by its definition."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

from ldm_privacy.errors import UserError
from ldm_privacy.metrics import holm, p_value_by_set_size, welch_verdict
from ldm_privacy.randomness import derive_seed
from tests.reference import metrics as reference

RARE = 1e-4


def scores(generator, num_suspect, num_heldout, shift=0.0, spread=1.0):
    suspect = torch.from_numpy(generator.normal(shift, spread, size=num_suspect))
    return suspect, torch.from_numpy(generator.normal(size=num_heldout))


def test_verdict_equals_scipy_and_the_written_out_test():
    suspect, heldout = scores(np.random.default_rng(0), 23, 61, shift=0.4, spread=2.5)
    result = welch_verdict(suspect, heldout, confidence=0.9)
    p_value, lower = reference.welch(suspect.numpy(), heldout.numpy(), 0.9)
    assert result.p_value == pytest.approx(p_value, rel=1e-6)
    assert result.lower == pytest.approx(lower, rel=1e-9)
    theirs = stats.ttest_ind(suspect, heldout, equal_var=False, alternative="greater")
    assert result.p_value == pytest.approx(theirs.pvalue, rel=1e-9)
    assert result.lower == pytest.approx(theirs.confidence_interval(0.9).low, rel=1e-9)
    assert result.difference == pytest.approx(float(suspect.mean() - heldout.mean()))
    assert result.effect_size == pytest.approx(result.difference / math.sqrt((suspect.var() + heldout.var()) / 2))
    assert (result.num_suspect, result.num_heldout) == (23, 61)
    at_p = welch_verdict(suspect, heldout, confidence=1 - result.p_value)
    assert at_p.lower == pytest.approx(0.0, abs=1e-9)


def test_verdict_ignores_level_and_scale_and_is_one_sided():
    suspect, heldout = scores(np.random.default_rng(1), 40, 30, shift=0.5)
    result = welch_verdict(suspect, heldout)
    for level, scale in ((4000, 50), (0, 1e-9), (0, 1e9)):
        mapped = welch_verdict(level + scale * suspect, level + scale * heldout)
        assert (mapped.p_value, mapped.effect_size) == pytest.approx((result.p_value, result.effect_size), rel=1e-9)
        assert mapped.difference == pytest.approx(scale * result.difference)
    assert welch_verdict(heldout, suspect).p_value == pytest.approx(1 - result.p_value)


def test_groups_are_tested_by_their_means():
    generator = np.random.default_rng(2)
    suspect, heldout = scores(generator, 60, 50, shift=0.3)
    suspect_group = torch.from_numpy(np.append(np.arange(15), generator.integers(15, size=45)))
    grouped = welch_verdict(suspect, heldout, suspect_group=suspect_group)
    means = torch.stack([suspect[suspect_group == index].mean() for index in range(15)])
    assert grouped.num_suspect == 15
    assert grouped.p_value == pytest.approx(welch_verdict(means, heldout).p_value)
    # Copies of samples are no new evidence where they are named as such.
    copies = welch_verdict(
        suspect.repeat_interleave(9),
        heldout.repeat_interleave(9),
        suspect_group=torch.arange(60).repeat_interleave(9),
        heldout_group=1000 + torch.arange(50).repeat_interleave(9),
    )
    assert copies.p_value == pytest.approx(welch_verdict(suspect, heldout).p_value)


def test_verdict_keeps_its_level_with_unequal_sizes_and_variances():
    generator = np.random.default_rng(3)
    num_runs = 1000
    results = [welch_verdict(*scores(generator, 12, 80, spread=3.0)) for _ in range(num_runs)]
    rejections = sum(result.p_value < 0.05 for result in results)
    # Exact to a fraction of a percent; the pooled test would reject 13 % here.
    assert stats.binom.ppf(RARE, num_runs, 0.045) <= rejections <= stats.binom.isf(RARE, num_runs, 0.055)
    assert rejections == sum(result.lower > 0 for result in results)


def test_curve_at_the_whole_set_is_the_verdict_and_falls_with_size():
    suspect, heldout = scores(np.random.default_rng(4), 300, 400, shift=0.4)
    suspect, heldout = 4000 + suspect, 4000 + heldout
    curve = p_value_by_set_size(suspect, heldout, [300, 10, 50, 150])
    whole = curve[0]
    verdict = welch_verdict(suspect, heldout)
    assert [point.size for point in curve] == [300, 10, 50, 150]
    assert (whole.quantile_10, whole.median, whole.quantile_90) == pytest.approx((verdict.p_value,) * 3, rel=1e-6)
    assert whole.power == 1.0
    by_size = sorted(curve, key=lambda point: point.size)
    for smaller, larger in itertools.pairwise(by_size):
        assert smaller.median > larger.median
        assert smaller.power <= larger.power
        assert smaller.quantile_10 <= smaller.median <= smaller.quantile_90


def test_curve_equals_tests_of_random_subsets():
    generator = np.random.default_rng(5)
    suspect, heldout = scores(generator, 80, 60, shift=0.3)
    num_draws = 1500
    (point,) = p_value_by_set_size(suspect, heldout, [15], num_draws=num_draws, alpha=0.2)
    p_values = [
        reference.welch(generator.choice(suspect.numpy(), size=15, replace=False), heldout.numpy(), 0.95)[0]
        for _ in range(num_draws)
    ]
    for share, value in ((0.1, point.quantile_10), (0.5, point.median), (0.9, point.quantile_90)):
        slack = 4 * math.sqrt(2 * share * (1 - share) / num_draws)
        assert np.quantile(p_values, share - slack) <= value <= np.quantile(p_values, min(1.0, share + slack))
    power = np.mean(np.array(p_values) < 0.2)
    assert abs(point.power - power) <= 4 * math.sqrt(2 * power * (1 - power) / num_draws)


def test_curve_equals_tests_of_the_subsets_that_its_seed_draws():
    suspect, heldout = scores(np.random.default_rng(10), 30, 25, shift=0.5)
    heldout_group = torch.arange(25) // 2
    means = np.array([heldout[heldout_group == index].mean() for index in range(13)])
    sizes = [30, 2, 11]
    curve = p_value_by_set_size(suspect, heldout, sizes, heldout_group=heldout_group, num_draws=40, alpha=0.3, seed=8)
    generator = np.random.default_rng(derive_seed("set size", 8))
    orders = [generator.permutation(suspect.numpy()) for _ in range(40)]
    for size, point in zip(sizes, curve, strict=True):
        p_values = [reference.welch(order[:size], means, 0.95)[0] for order in orders]
        expected = np.quantile(p_values, [0.1, 0.5, 0.9])
        assert (point.quantile_10, point.median, point.quantile_90) == pytest.approx(tuple(expected), rel=1e-9)
        assert (point.size, point.power) == (size, np.mean(np.array(p_values) < 0.3))
    assert p_value_by_set_size(suspect, heldout, []) == []


def test_power_counts_what_is_below_alpha():
    # Sums of whole numbers: every order of the whole set has the same p-value to the last digit.
    suspect, heldout = torch.tensor([1.0, 4.0, 7.0]), torch.tensor([0.0, 1.0, 5.0, 2.0])
    (point,) = p_value_by_set_size(suspect, heldout, [3])
    assert point.quantile_10 == point.quantile_90
    for alpha, power in ((point.median, 0.0), (np.nextafter(point.median, 1.0), 1.0)):
        assert p_value_by_set_size(suspect, heldout, [3], alpha=float(alpha))[0].power == power


def test_curve_under_the_null_has_power_alpha_on_fresh_sets():
    generator = np.random.default_rng(6)
    num_runs = 400
    rejections = sum(
        p_value_by_set_size(*scores(generator, 20, 40), [10], num_draws=1, seed=seed)[0].power for seed in range(num_runs)
    )
    assert rejections <= stats.binom.isf(RARE, num_runs, 0.055)


def test_curve_takes_groups_and_its_seed():
    suspect, heldout = scores(np.random.default_rng(7), 60, 40, shift=0.3)
    group = torch.arange(60) // 3
    curve = p_value_by_set_size(suspect, heldout, [5, 20], suspect_group=group)
    means = suspect.reshape(20, 3).mean(dim=1)
    expected = p_value_by_set_size(means, heldout, [5, 20])
    assert [point.median for point in curve] == pytest.approx([point.median for point in expected])
    assert p_value_by_set_size(means, heldout, [5], seed=1) == p_value_by_set_size(means, heldout, [5], seed=1)
    assert p_value_by_set_size(means, heldout, [5], seed=1) != expected[:1]
    with pytest.raises(UserError, match="set size 21: choose sizes from 2 to 20"):
        p_value_by_set_size(suspect, heldout, [21], suspect_group=group)


def test_holm_equals_the_closed_test_by_bonferroni():
    # Holm is the closure of Bonferroni: a hypothesis falls where Bonferroni rejects every intersection that holds it.
    generator = np.random.default_rng(8)
    for p_values in (generator.random(5) ** 3, [0.01, 0.01, 0.04, 0.04], [0.5, 0.9], [0.02], []):
        subsets = [s for size in range(1, len(p_values) + 1) for s in itertools.combinations(range(len(p_values)), size)]
        expected = [
            max(min(1.0, len(s) * min(p_values[j] for j in s)) for s in subsets if i in s) for i in range(len(p_values))
        ]
        assert holm(p_values) == pytest.approx(expected)
    assert holm([0, 1]) == [0.0, 1.0]
    assert holm(np.array([0.03, 0.9, 0.9], dtype=np.float32)) == [3 * float(np.float32(0.03)), 1.0, 1.0]


def test_holm_errs_as_rarely_as_stated_however_the_tests_depend():
    generator = np.random.default_rng(9)
    num_runs, errors = 2000, 0
    for _ in range(num_runs):
        common, own = generator.normal(), generator.normal(size=6)
        statistic = 0.6 * common + 0.8 * own
        statistic[:2] += 4.0
        errors += min(holm(stats.norm.sf(statistic))[2:]) <= 0.05
    assert errors <= stats.binom.isf(RARE, num_runs, 0.05)


def test_bad_input_is_named():
    good, constant = torch.arange(5.0), torch.full((5,), 0.1)
    with pytest.raises(UserError, match="suspect and held-out scores are constant"):
        welch_verdict(constant, 2 * constant)
    with pytest.raises(UserError, match="constant"):
        welch_verdict(constant, constant, suspect_group=torch.tensor([0, 0, 0, 1, 1]))
    for scale in (0.0, 1e9, 1e-9):
        with pytest.raises(UserError, match="suspect and held-out scores are constant"):
            welch_verdict(scale * constant.double(), scale * constant.double(), suspect_group=torch.tensor([0, 0, 0, 1, 1]))
    assert welch_verdict(good, constant).p_value < 0.05
    with pytest.raises(UserError, match="held-out scores are constant"):
        p_value_by_set_size(good, constant, [3])
    with pytest.raises(UserError, match="1 suspect samples"):
        welch_verdict(good[:1], good)
    with pytest.raises(UserError, match="1 held-out groups"):
        welch_verdict(good, good, heldout_group=torch.zeros(5))
    with pytest.raises(UserError, match=r"^membership score of held-out sample 2 is nan: take the sample out"):
        welch_verdict(good, torch.tensor([0.0, 1.0, torch.nan]))
    with pytest.raises(UserError, match="4 group labels for 5 suspect samples"):
        welch_verdict(good, good, suspect_group=torch.arange(4))
    with pytest.raises(UserError, match="group 3 has suspect and held-out"):
        welch_verdict(good, good, suspect_group=torch.arange(5), heldout_group=torch.arange(3, 8))
    with pytest.raises(UserError, match="alpha is 5"):
        p_value_by_set_size(good, good, [3], alpha=5)
    with pytest.raises(ValueError, match="one row"):
        welch_verdict(good.expand(2, 5), good)
    with pytest.raises(ValueError, match="p-values"):
        holm([0.2, 1.2])
