"""TPR at a small FPR, its mirror image, rates at a fixed threshold, ASR and the ROC curve."""

import importlib

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn import metrics as sklearn_metrics

from ldm_privacy.errors import UserError
from ldm_privacy.metrics import (
    attack_success_rate,
    attack_success_rate_interval,
    auroc_interval,
    check_scores,
    clopper_pearson,
    membership_metrics,
    resolvable,
    roc_curve,
    threshold_at_fpr,
    tnr_at_fnr,
    tpr_at_fpr,
    tpr_at_fpr_interval,
    tpr_at_threshold,
)
from ldm_privacy.metrics.resampling import SideResampler, Sides, sides_of
from ldm_privacy.metrics.tpr_at_fpr import bootstrap_tpr, num_false_positives
from ldm_privacy.randomness import derive_seed
from tests.reference import metrics as reference

RARE = 1e-4


def make(generator, num_members, num_heldout, shift=1.0, decimals=None):
    """Normal scores in random sample order, optionally rounded so that there are ties."""
    is_member = generator.permutation(np.arange(num_members + num_heldout) < num_members)
    score = generator.normal(size=is_member.size) + shift * is_member
    return torch.from_numpy(score if decimals is None else score.round(decimals)), torch.from_numpy(is_member)


def sides(score, is_member):
    return score[is_member].numpy(), score[~is_member].numpy()


@pytest.mark.parametrize("decimals", [None, 1, 0])
@pytest.mark.parametrize("target", [0.001, 0.01, 0.07, 0.29, 0.57])
def test_rates_equal_the_loop_over_thresholds(decimals, target):
    # 100 held-out: 0.07, 0.29 and 0.57 times 100 all miss an integer by a rounding error.
    score, is_member = make(np.random.default_rng(0), 60, 100, decimals=decimals)
    member, heldout = sides(score, is_member)
    assert float(tpr_at_fpr(score, is_member, target)) == pytest.approx(reference.tpr_at_fpr(member, heldout, target))
    assert float(tnr_at_fnr(score, is_member, target)) == pytest.approx(reference.tnr_at_fnr(member, heldout, target))
    asr = reference.attack_success_rate(member, heldout)
    assert float(attack_success_rate(score, is_member)) == pytest.approx(asr, abs=1e-14)
    threshold = float(threshold_at_fpr(score, is_member, target))
    assert np.mean(heldout > threshold) <= target + 1e-11


def test_tpr_and_tnr_are_mirror_images_and_differ_on_skewed_scores():
    score, is_member = make(np.random.default_rng(1), 300, 300)
    skewed = score.exp()
    assert tnr_at_fnr(score, is_member, 0.05) == tpr_at_fpr(-score, ~is_member, 0.05)
    # Half of the members far out: easy to name some members, impossible to clear held-out samples.
    outlying = torch.where(is_member & (torch.arange(600) % 2 == 0), skewed + 1000, torch.rand(600).double())
    assert tpr_at_fpr(outlying, is_member) > 0.4
    assert tnr_at_fnr(outlying, is_member) < 0.1


def test_rates_are_batched_and_survive_increasing_maps(monkeypatch):
    module = importlib.import_module("ldm_privacy.metrics.checks")
    monkeypatch.setattr(module, "NUMBERS_AT_ONCE", 600)
    generator = np.random.default_rng(2)
    _, is_member = make(generator, 130, 120)
    score = torch.from_numpy(generator.normal(size=(2, 3, 250)).round(1))
    for metric in (tpr_at_fpr, tnr_at_fnr, attack_success_rate):
        batched = metric(score, is_member)
        assert batched.shape == (2, 3)
        for i in range(2):
            for j in range(3):
                assert batched[i, j] == metric(score[i, j], is_member)
        assert torch.equal(metric(4000 + 10 * score, is_member), batched)
        order = torch.from_numpy(generator.permutation(250))
        assert torch.equal(metric(score[..., order], is_member[order]), batched)


def test_attack_success_rate_is_one_half_for_constant_or_reversed_scores():
    is_member = torch.arange(30) < 10
    assert attack_success_rate(torch.zeros(30), is_member) == 0.5
    assert attack_success_rate(-is_member.double(), is_member) == 0.5
    assert attack_success_rate(is_member.double(), is_member) == 1.0


def test_roc_curve_equals_sklearn_and_the_loop_at_magnitude_4000():
    score, is_member = make(np.random.default_rng(3), 70, 90, decimals=1)
    score = 4000 + 100 * score
    fpr, tpr, threshold = roc_curve(score, is_member)
    expected = sklearn_metrics.roc_curve(is_member, score, drop_intermediate=False)
    for ours, theirs, slow in zip((fpr, tpr, threshold), expected, reference.roc_curve(*sides(score, is_member))):
        np.testing.assert_allclose(ours, theirs, atol=1e-15)
        np.testing.assert_allclose(ours, slow, atol=1e-15)
    assert float(torch.trapezoid(tpr, fpr)) == pytest.approx(sklearn_metrics.roc_auc_score(is_member, score))


def test_roc_curve_of_a_few_samples_equals_the_loop_whoever_comes_first_or_last():
    generator = np.random.default_rng(26)
    for _ in range(40):
        score, is_member = make(generator, *generator.integers(1, 4, size=2), decimals=0)
        for ours, slow in zip(roc_curve(score, is_member), reference.roc_curve(*sides(score, is_member)), strict=True):
            assert (ours.dtype, ours.tolist()) == (torch.float64, pytest.approx(slow.tolist()))


@pytest.mark.parametrize("decimals", [None, 1])
@pytest.mark.parametrize("num_heldout", [80, 230])
def test_direct_bootstrap_has_the_law_of_resampling_the_scores(decimals, num_heldout):
    generator = np.random.default_rng(4)
    member, heldout = sides(*make(generator, 50, num_heldout, decimals=decimals))
    num_draws = 3000
    for group in (None, np.arange(num_heldout)):
        pair = Sides(SideResampler(50, None if group is None else np.arange(50)), SideResampler(num_heldout, group))
        direct = bootstrap_tpr(member, heldout, 0.0125, num_draws, generator, pair)
        naive = reference.naive_bootstrap_tpr(member, heldout, 0.0125, num_draws, generator)
        for ours, theirs in zip(direct, naive):
            # Kolmogorov-Smirnov, conservative for a discrete law.
            assert stats.ks_2samp(ours, theirs).pvalue > RARE
            spread = np.sqrt((ours.var() + theirs.var()) / num_draws)
            assert abs(ours.mean() - theirs.mean()) <= 4 * spread


def test_direct_bootstrap_draws_the_exact_law_of_the_threshold():
    # All members lie between the second and the third largest held-out score: the TPR is 1 where the threshold of a resample
    # is the third or a lower one, that is, where fewer than `order` of its 6 draws are among the first two.
    member, heldout = np.full(7, 4.5), np.arange(1.0, 7.0)
    sides_of_singles = Sides(SideResampler(7), SideResampler(6))
    draws = bootstrap_tpr(member, heldout, 2 / 6, 20_000, np.random.default_rng(14), sides_of_singles)
    for order, draw in zip((2, 3), draws):
        probability = stats.binom.cdf(order - 1, 6, 2 / 6)
        assert set(np.unique(draw)) == {0.0, 1.0}
        assert stats.binomtest(int(draw.sum()), 20_000, probability).pvalue > RARE


def in_groups(generator, num_member_groups, num_heldout_groups, sizes, decimals):
    """Scores that agree within groups, as tensors and as a list of arrays by group on each side."""
    size = generator.choice(sizes, size=num_member_groups + num_heldout_groups)
    label = np.repeat(np.arange(len(size)), size)
    is_member = label < num_member_groups
    level = generator.normal(size=len(size))[label]
    score = (level + 0.3 * generator.normal(size=len(label)) + is_member).round(decimals)
    groups = [score[label == index] for index in range(len(size))]
    tensors = [torch.from_numpy(each) for each in (score, is_member, label)]
    return *tensors, groups[:num_member_groups], groups[num_member_groups:]


def stream(purpose, seed):
    return np.random.default_rng(derive_seed(f"bootstrap {purpose}", seed))


@pytest.mark.parametrize("decimals", [8, 0])
@pytest.mark.parametrize(("confidence", "target", "num_heldout"), [(0.95, 0.02, 200), (0.8, 0.001, 90), (0.5, 0.0125, 90)])
def test_interval_of_tpr_is_the_one_of_the_docs_with_the_same_draws(confidence, target, num_heldout, decimals):
    score, is_member = make(np.random.default_rng(15), 130, num_heldout, shift=2.0, decimals=decimals)
    group = torch.arange(len(score))
    member, heldout = sides(score, is_member)
    tail = (1 - confidence) / 2
    exact = clopper_pearson(float(tpr_at_fpr(score, is_member, target)) * 130, 130, confidence=confidence)
    singles = member[:, None], heldout[:, None]
    slow = {
        None: reference.bootstrap_tpr_by_law(member, heldout, target, 300, stream("tpr", 3)),
        group: reference.group_bootstrap_tpr(*singles, target, 300, stream("tpr", 3)),
    }
    for labels, (strict, loose) in slow.items():
        options = {"confidence": confidence, "num_bootstrap": 300, "seed": 3, "group": labels}
        result = tpr_at_fpr_interval(score, is_member, target, **options)
        lower = 0.0 if (1 - target) ** num_heldout > tail else min(np.quantile(strict, tail), exact.lower)
        assert result.lower == pytest.approx(lower, abs=1e-12)
        assert result.upper == pytest.approx(max(np.quantile(loose, 1 - tail), exact.upper), abs=1e-12)
        assert result.value == float(tpr_at_fpr(score, is_member, target))
        assert result.num_heldout_above == (heldout > result.threshold).sum() <= target * num_heldout
        assert (result.target_fpr, result.is_resolvable) == (target, target * num_heldout >= 1)


@pytest.mark.parametrize("decimals", [8, 0])
def test_interval_of_tpr_counts_groups(decimals):
    score, is_member, label, members, heldout = in_groups(np.random.default_rng(21), 30, 40, [1, 2, 7], decimals)
    result = tpr_at_fpr_interval(score, is_member, 0.1, group=label, num_bootstrap=300, seed=3, confidence=0.9)
    for target in (0.001, 0.1):
        pair = [np.concatenate(side) for side in (members, heldout)]
        for labels, slow in (
            (None, reference.bootstrap_tpr_by_law(*pair, target, 50, stream("tpr", 2))),
            (label, reference.group_bootstrap_tpr(members, heldout, target, 50, stream("tpr", 2))),
        ):
            draws = bootstrap_tpr(*pair, target, 50, stream("tpr", 2), sides_of(is_member, labels))
            np.testing.assert_allclose(np.stack(draws), np.stack(slow), atol=1e-12)
    strict, loose = reference.group_bootstrap_tpr(members, heldout, 0.1, 300, stream("tpr", 3))
    exact = clopper_pearson(result.value * 30, 30, confidence=0.9)
    assert result.lower == pytest.approx(min(np.quantile(strict, 0.05), exact.lower), abs=1e-12)
    assert result.upper == pytest.approx(max(np.quantile(loose, 0.95), exact.upper), abs=1e-12)
    # Forty groups resolve 2.5 %, however many samples they have.
    for target, is_resolvable in ((0.025, True), (0.024, False)):
        assert tpr_at_fpr_interval(score, is_member, target, group=label, num_bootstrap=1).is_resolvable == is_resolvable


@pytest.mark.parametrize("decimals", [8, 0])
@pytest.mark.parametrize("confidence", [0.5, 0.95])
def test_interval_of_asr_is_the_one_of_the_docs_with_the_same_draws(decimals, confidence):
    # Powers of two, so that equally good thresholds are equal to the last digit in both versions.
    for shift, num_bootstrap in ((1.0, 100), (-9.0, 10)):  # the second is worse than any guess
        score, is_member = make(np.random.default_rng(17), 32, 64, shift, decimals)
        member, heldout = sides(score, is_member)
        options = {"num_bootstrap": num_bootstrap, "confidence": confidence, "seed": 4}
        result = attack_success_rate_interval(score, is_member, **options)
        slow = reference.asr_interval(member[:, None], heldout[:, None], confidence, num_bootstrap, stream("asr", 4))
        assert (result.lower, result.upper) == pytest.approx(slow, abs=1e-12)
    score, is_member, label, *groups = in_groups(np.random.default_rng(22), 8, 16, [4], decimals)
    result = attack_success_rate_interval(score, is_member, group=label, num_bootstrap=100, confidence=confidence, seed=4)
    slow = reference.asr_interval(*groups, confidence, 100, stream("asr", 4))
    assert (result.lower, result.upper) == pytest.approx(slow, abs=1e-12)


@pytest.mark.parametrize(("num_members", "num_heldout"), [(1, 1), (1, 5), (2, 9), (30, 2), (40, 60)])
def test_width_of_asr_counts_groups_of_any_size(num_members, num_heldout):
    generator = np.random.default_rng(23)
    for sizes in ([1], [3], [1, 2, 7]):
        score, is_member, label, *groups = in_groups(generator, num_members, num_heldout, sizes, 1)
        result = attack_success_rate_interval(score, is_member, group=label, num_bootstrap=1, confidence=0.6)
        value, cuts = float(attack_success_rate(score, is_member)), reference.roc_curve(*sides(score, is_member))
        cut = cuts[2][np.argmax(cuts[1] - cuts[0])]
        variance = sum(reference.share_variance([group >= cut for group in side]) for side in groups) / 4
        assert result.upper == pytest.approx(min(1.0, value + stats.norm.ppf(0.8) * np.sqrt(variance)), abs=1e-12)


@pytest.mark.parametrize("num_pairs", [1, 2, 3, 4, 5, 6, 10, 300])
def test_interval_of_asr_at_perfect_separation_ends_where_the_docs_say(num_pairs):
    is_member = torch.arange(2 * num_pairs + 7) < num_pairs
    for confidence in (0.5, 0.95):
        result = attack_success_rate_interval(is_member.double(), is_member, confidence=confidence, num_bootstrap=10)
        flags = [np.ones((num, 1)) for num in (num_pairs, num_pairs + 7)]
        half_width = stats.norm.ppf((1 + confidence) / 2) * np.sqrt(sum(map(reference.share_variance, flags)) / 4)
        bound = reference.separated_bound(num_pairs, (1 - confidence) / 2)
        assert (result.value, result.upper) == (1.0, 1.0)
        assert result.lower == pytest.approx(max(0.5, min(1 - half_width, bound)), abs=1e-9)


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_rates_at_a_threshold_count_groups(confidence):
    score, is_member, label, members, heldout = in_groups(np.random.default_rng(24), 30, 45, [1, 2, 25], 8)
    options = {"confidence": confidence, "num_bootstrap": 200, "seed": 6, "group": label}
    threshold = float(score[3])
    rates = tpr_at_threshold(score, is_member, threshold, **options)
    assert rates.threshold == threshold
    for name, rate, groups in (("tpr", rates.tpr, members), ("fpr", rates.fpr, heldout)):
        generator = stream(name, 6)
        draws = [reference.resample(groups, generator) for _ in range(200)]
        lower, upper = np.quantile([np.mean(draw > threshold) for draw in draws], [(1 - confidence) / 2, (1 + confidence) / 2])
        exact = clopper_pearson(rate.value * len(groups), len(groups), confidence=confidence)
        assert rate.value == np.mean(np.concatenate(groups) > threshold)
        assert (rate.lower, rate.upper) == pytest.approx((min(lower, exact.lower), max(upper, exact.upper)), abs=1e-12)


def test_interval_of_asr_grows_with_groups_that_agree_within():
    score, is_member = make(np.random.default_rng(20), 90, 90)
    plain = attack_success_rate_interval(score, is_member)
    copies, is_member_copy = score.repeat_interleave(5), is_member.repeat_interleave(5)
    group = torch.arange(180).repeat_interleave(5)
    grouped = attack_success_rate_interval(copies, is_member_copy, group=group)
    assert grouped.upper == pytest.approx(plain.upper, abs=2e-3)
    assert grouped.lower == pytest.approx(plain.lower, abs=5e-3)
    assert attack_success_rate_interval(copies, is_member_copy).upper - plain.value < 0.5 * (plain.upper - plain.value)
    # Groups without anything in common cost little.
    shuffled = 1000 * is_member + torch.arange(180) // 3
    free = attack_success_rate_interval(score, is_member, group=shuffled)
    assert free.upper - free.value < 1.4 * (plain.upper - plain.value)


def test_interval_of_asr_of_constant_scores_is_not_a_point():
    result = attack_success_rate_interval(torch.zeros(90), torch.arange(90) < 40)
    assert (result.value, result.lower) == (0.5, 0.5)
    assert result.upper == pytest.approx(1 - 0.05 ** (1 / 40) / 2)


def test_interval_of_tpr_carries_the_threshold():
    score, is_member = make(np.random.default_rng(5), 2000, 2000)
    result = tpr_at_fpr_interval(score, is_member)
    fixed = clopper_pearson(result.value * 2000, 2000)
    assert result.value == float(tpr_at_fpr(score, is_member))
    assert result.upper - result.lower > 1.5 * (fixed.upper - fixed.lower)
    assert result.num_heldout_above == 20
    assert float((score[is_member] > result.threshold).double().mean()) == result.value
    assert tpr_at_fpr_interval(score, is_member, seed=1) != result
    assert tpr_at_fpr_interval(score, is_member) == result


def test_interval_of_tpr_never_collapses_and_says_when_it_knows_nothing():
    is_member = torch.arange(1000) < 500
    perfect = tpr_at_fpr_interval(is_member.double(), is_member)
    assert (perfect.value, perfect.upper) == (1.0, 1.0)
    assert perfect.lower <= clopper_pearson(500, 500).lower < 1.0
    nothing = tpr_at_fpr_interval(-is_member.double(), is_member)
    assert (nothing.value, nothing.lower) == (0.0, 0.0)
    assert nothing.upper >= clopper_pearson(0, 500).upper > 0.0
    # (1 - 0.01)^367 > 2.5 % >= (1 - 0.01)^368
    for num_heldout, is_bounded in ((367, False), (368, True)):
        result = tpr_at_fpr_interval(*make(np.random.default_rng(13), 400, num_heldout, shift=9.0))
        assert (result.lower > 0) == is_bounded


def test_heldout_samples_that_just_suffice_bound_the_tpr_from_below():
    # (1 - 0.5)^2 = 25 % = (1 - 0.5) / 2, exactly.
    score, is_member = torch.tensor([1.0, 0.0, *[0.5] * 30, *[2.0] * 30]), torch.arange(62) > 1
    assert tpr_at_fpr_interval(score, is_member, 0.5, confidence=0.5).lower > 0.4
    assert tpr_at_fpr_interval(score, is_member, 0.5, confidence=0.5000001).lower == 0.0


def test_interval_of_tpr_grows_with_groups():
    score, is_member = make(np.random.default_rng(6), 200, 600)
    copies, is_member_copy = score.repeat_interleave(4), is_member.repeat_interleave(4)
    group = torch.arange(800).repeat_interleave(4)
    plain = tpr_at_fpr_interval(copies, is_member_copy, 0.05)
    grouped = tpr_at_fpr_interval(copies, is_member_copy, 0.05, group=group)
    assert grouped.value == plain.value
    assert grouped.upper - grouped.lower > 1.4 * (plain.upper - plain.lower)


def test_resolvable_needs_one_false_positive():
    assert resolvable(0.01, 100)
    assert not resolvable(0.01, 99)
    assert resolvable(0.07, 100)
    # 0.29 * 100 = 28.999999999999996
    assert [num_false_positives(share, 100) for share in (0.07, 0.29, 0.295, 0.57)] == [7, 29, 29, 57]


def test_clopper_pearson_equals_scipy():
    for num_hits in (0, 1, 17, 29, 30):
        ours = clopper_pearson(num_hits, 30, confidence=0.9)
        theirs = stats.binomtest(num_hits, 30).proportion_ci(0.9, method="exact")
        assert (ours.lower, ours.upper) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_carried_over_threshold_has_exact_rates():
    generator = np.random.default_rng(7)
    threshold = float(threshold_at_fpr(*make(generator, 400, 400), 0.05))
    score, is_member = make(generator, 300, 200)
    member, heldout = sides(score, is_member)
    for confidence in (0.8, 0.95):
        rates = tpr_at_threshold(score, is_member, threshold, confidence=confidence)
        assert rates.tpr == clopper_pearson(int((member > threshold).sum()), 300, confidence=confidence)
        assert rates.fpr == clopper_pearson(int((heldout > threshold).sum()), 200, confidence=confidence)
    # On the samples that chose it, the same threshold gives back the target's TPR and at most its FPR.
    own_threshold = float(threshold_at_fpr(score, is_member, 0.05))
    own = tpr_at_threshold(score, is_member, own_threshold)
    assert own.tpr.value == float(tpr_at_fpr(score, is_member, 0.05))
    assert own.fpr.value <= 0.05


@pytest.mark.parametrize(("num_samples", "shift"), [(100, 1.0), (417, 0.0), (417, 1.0), (417, 3.0)])
def test_interval_of_tpr_covers_where_clopper_pearson_does_not(num_samples, shift):
    generator = np.random.default_rng(8)
    num_runs, truth = 250, reference.normal_truth(shift)["tpr"]
    misses = fixed_misses = 0
    for seed in range(num_runs):
        score, is_member = make(generator, num_samples, num_samples, shift)
        result = tpr_at_fpr_interval(score, is_member, seed=seed, num_bootstrap=400)
        misses += not result.lower <= truth <= result.upper
        fixed = tpr_at_threshold(score, is_member, result.threshold).tpr
        fixed_misses += not fixed.lower <= truth <= fixed.upper
    assert misses <= stats.binom.isf(RARE, num_runs, 0.05)
    if shift == 1.0:
        assert fixed_misses > 0.2 * num_runs


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_interval_of_asr_covers_where_plain_percentiles_do_not(shift):
    generator = np.random.default_rng(9)
    num_runs, truth = 200, reference.normal_truth(shift)["asr"]
    misses = value_above = 0
    for seed in range(num_runs):
        result = attack_success_rate_interval(*make(generator, 100, 100, shift), seed=seed, num_bootstrap=100)
        misses += not result.lower <= truth <= result.upper
        value_above += result.value > truth
        assert 0.5 <= result.lower <= result.upper <= 1.0
    assert misses <= stats.binom.isf(RARE, num_runs, 0.05)
    assert value_above > 0.5 * num_runs


def test_interval_of_asr_at_perfect_separation_is_not_a_point():
    is_member = torch.arange(600) < 300
    result = attack_success_rate_interval(is_member.double(), is_member, num_bootstrap=20)
    assert (result.value, result.upper) == (1.0, 1.0)
    # 2 k (1 - s) s^(2k-2) + (2s - 1)^k = 2.5 % at 1 - s close to 2.79 / k for large k.
    assert result.lower == pytest.approx(1 - 2.79 / 300, abs=1e-4)


def test_interval_of_asr_with_ties_is_the_same_under_increasing_maps():
    score, is_member = make(np.random.default_rng(10), 90, 110, decimals=0)
    result = attack_success_rate_interval(score, is_member, num_bootstrap=100)
    assert attack_success_rate_interval(4000 + 30 * score, is_member, num_bootstrap=100) == result
    assert result.value == float(attack_success_rate(score, is_member))


def test_membership_metrics_collects_the_single_numbers():
    score, is_member = make(np.random.default_rng(11), 500, 450)
    result = membership_metrics(score, is_member, seed=5, num_bootstrap=200)
    assert (result.num_members, result.num_heldout) == (500, 450)
    assert result.asr == attack_success_rate_interval(score, is_member, seed=5)
    assert membership_metrics(score, is_member, seed=5, num_bootstrap=300).asr == result.asr
    assert result.tpr_at_1fpr == tpr_at_fpr_interval(score, is_member, seed=5, num_bootstrap=200)
    assert result.tnr_at_fnr[0] == float(tnr_at_fnr(score, is_member))
    for estimate in (result.auroc, result.asr, result.tpr_at_1fpr):
        assert estimate.lower <= estimate.value <= estimate.upper
    assert len(result.tpr_at_fpr) == len(result.tnr_at_fnr) == 2


def test_membership_metrics_hands_its_options_on():
    score, is_member, group, *_ = in_groups(np.random.default_rng(25), 30, 40, [1, 2, 7], 2)
    options = {"confidence": 0.8, "group": group, "num_bootstrap": 60, "seed": 2}
    result = membership_metrics(score, is_member, target_fprs=(0.1,), **options)
    assert result.auroc == auroc_interval(score, is_member, **options)
    assert result.asr == attack_success_rate_interval(score, is_member, **options)
    assert result.tpr_at_fpr == (tpr_at_fpr_interval(score, is_member, 0.1, **options),)


def test_membership_metrics_reports_the_targets_in_the_order_asked_for():
    score, is_member = make(np.random.default_rng(11), 500, 450)
    targets = (0.001, 0.1, 0.01)
    result = membership_metrics(score.float(), is_member, target_fprs=targets, num_bootstrap=100)
    assert [each.target_fpr for each in result.tpr_at_fpr] == list(targets)
    assert [each.is_resolvable for each in result.tpr_at_fpr] == [False, True, True]
    assert result.tnr_at_fnr == tuple(float(tnr_at_fnr(score.float(), is_member, target)) for target in targets)
    assert result.tpr_at_1fpr == result.tpr_at_fpr[2]
    # Without 1 % among them, the first one takes its place.
    other = membership_metrics(score, is_member, target_fprs=[0.1, 0.2], num_bootstrap=100)
    assert other.tpr_at_1fpr == other.tpr_at_fpr[0]
    with pytest.raises(UserError, match="target_fprs is empty"):
        membership_metrics(score, is_member, target_fprs=())


def test_groups_count_as_one_when_a_target_is_to_be_resolved():
    score, is_member = make(np.random.default_rng(19), 200, 200)
    group = torch.arange(400) // 4
    group[is_member] += 1000
    assert tpr_at_fpr_interval(score, is_member, 0.01).is_resolvable
    assert not tpr_at_fpr_interval(score, is_member, 0.01, group=group, num_bootstrap=50).is_resolvable


def test_scores_that_cannot_be_ranked_are_named():
    is_member = torch.tensor([True, False, True, False])
    score = torch.tensor([[0.0, 1.0, 2.0, 3.0], [0.0, 1.0, float("nan"), 3.0]])
    with pytest.raises(UserError, match="sample 2 is nan"):
        check_scores(score, is_member)
    with pytest.raises(UserError, match="sample 1 is -inf"):
        membership_metrics(torch.tensor([0.0, -torch.inf, 1.0, 2.0]), is_member)
    with pytest.raises(UserError, match="target_fpr is 1"):
        tpr_at_fpr(score[0], is_member, 1.0)


@pytest.mark.slow
@pytest.mark.parametrize("num_samples", [100, 417, 2500])
@pytest.mark.parametrize("shift", [0.0, 0.5, 1.0, 2.0, 3.0])
def test_coverage_table(num_samples, shift, capsys):
    generator = np.random.default_rng(12)
    num_runs, truth = 500, reference.normal_truth(shift)
    covered = {"auroc": 0, "asr": 0, "tpr": 0}
    for seed in range(num_runs):
        score, is_member = make(generator, num_samples, num_samples, shift)
        result = membership_metrics(score, is_member, seed=seed, num_bootstrap=400)
        for name, estimate in zip(covered, (result.auroc, result.asr, result.tpr_at_1fpr)):
            covered[name] += estimate.lower <= truth[name] <= estimate.upper
    with capsys.disabled():
        print(f"\nN {num_samples} shift {shift}: " + "  ".join(f"{k} {v / num_runs:.3f}" for k, v in covered.items()))
    # At least as stated, within four standard errors of the simulation.
    for name, count in covered.items():
        assert count / num_runs >= 0.95 - 4 * np.sqrt(0.95 * 0.05 / num_runs), name
