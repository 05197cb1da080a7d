"""Halves that chose for each other, against loops, closed forms, laws and simulation."""

import importlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from ldm_privacy.errors import UserError
from ldm_privacy.metrics import (
    Half,
    auroc,
    auroc_difference,
    auroc_interval,
    choice_reach,
    choice_widening,
    clopper_pearson,
    crossfit_auroc,
    crossfit_difference,
    crossfit_rates,
    p_value_by_set_size,
    tpr_at_threshold,
    welch_verdict,
)
from ldm_privacy.metrics.half import Part
from ldm_privacy.metrics.resampling import SideResampler, bootstrap_generator
from tests.reference import metrics as reference

RARE = 1e-4
NUM_DRAWS = 2000


def make(generator, num_candidates, num_samples, shift=1.0, correlation=0.5, decimals=None):
    """Candidates of one half, members first; correlated by a common part."""
    is_member = torch.arange(2 * num_samples) < num_samples
    noise = generator.normal(size=(num_candidates + 1, 2 * num_samples))
    score = correlation**0.5 * noise[:1] + (1 - correlation) ** 0.5 * noise[1:] + shift * is_member.numpy()
    return torch.from_numpy(score if decimals is None else score.round(decimals)), is_member


def crosswise(scores, is_members, **fields):
    """Two halves that have chosen for each other."""
    areas = [auroc(score, is_member) for score, is_member in zip(scores, is_members)]
    chosen = [int(area.argmax()) for area in areas[::-1]]
    return [Half(score, is_member, place, **fields) for score, is_member, place in zip(scores, is_members, chosen)]


def halves_of(generator, num_candidates=4, sizes=(40, 55), *, num_fitted=0, **options):
    return crosswise(*zip(*(make(generator, num_candidates, size, **options) for size in sizes)), num_fitted=num_fitted)


def quantile_error(tail, density):
    """Four standard errors of a quantile of as many independent draws as each half has."""
    return 4 * np.sqrt(tail * (1 - tail) / NUM_DRAWS) / density


def in_tables(half):
    """The rows as (member, held-out)."""
    member = half.is_member.numpy()
    return [(row[member], row[~member]) for row in half.candidates.numpy()]


@pytest.mark.parametrize("grouped", [False, True])
def test_a_half_that_stands_alone_has_the_plain_numbers(grouped):
    a, b = (halves_of(np.random.default_rng(seed), decimals=1)[0] for seed in (0, 1))
    group = torch.arange(80) // 2 if grouped else None
    a, b = replace(a, group=group, chosen=2), replace(b, group=group, chosen=1)
    plain, options = (a.candidates[2], a.is_member), {"confidence": 0.9, "group": group}
    resampling = {"num_bootstrap": 50, "seed": 3}
    assert crossfit_auroc([a], confidence=0.9, **resampling) == auroc_interval(*plain, **options, **resampling)
    assert crossfit_auroc([a]) == auroc_interval(*plain, group=group)
    for alternative in ("two-sided", "greater"):
        expected = auroc_difference(a.candidates[2], b.candidates[1], a.is_member, alternative=alternative, **options)
        assert crossfit_difference([a], [b], confidence=0.9, alternative=alternative) == expected
    rates, expected = (
        crossfit_rates([a], [0.7], confidence=0.9, **resampling),
        tpr_at_threshold(*plain, 0.7, **options, **resampling),
    )
    assert (rates.tpr, rates.fpr, rates.thresholds) == (expected.tpr, expected.fpr, (0.7,))
    assert choice_widening([a]) == 1.0


def test_without_a_choice_the_variance_is_that_of_two_independent_parts():
    halves = halves_of(np.random.default_rng(2), 1, decimals=1)
    tables = [in_tables(half)[0] for half in halves]
    value = np.mean([reference.auroc(*table) for table in tables])
    terms = [reference.placements(*table) for table in tables]
    variance = sum(np.var(term, ddof=1) / len(term) for pair in terms for term in pair) / 4
    reach = stats.norm.isf(0.05) * np.sqrt(variance) / (value * (1 - value))
    expected = 1 / (1 + np.exp(-np.log(value / (1 - value)) - np.array([-reach, 0, reach])))
    result = crossfit_auroc(halves, confidence=0.9)
    assert (result.lower, result.value, result.upper) == pytest.approx(expected, abs=1e-12)
    assert crossfit_auroc([replace(half, score=half.score[0]) for half in halves], confidence=0.9) == result


@pytest.mark.parametrize("alternative", ["two-sided", "greater"])
def test_difference_without_a_choice_is_the_mean_of_paired_ones_with_groups_summed(alternative):
    a, b = (halves_of(np.random.default_rng(seed), 1, shift=shift) for seed, shift in ((3, 1.0), (4, 0.7)))
    groups = [torch.arange(80) // 2, torch.arange(110) // 5 + 100]
    a, b = ([replace(half, group=group) for half, group in zip(halves, groups)] for halves in (a, b))
    values, variances = [], []
    for x, y, group in zip(a, b, groups):
        terms = [p - q for p, q in zip(*(reference.placements(*in_tables(half)[0]) for half in (x, y)))]
        of_side = [group[x.is_member].numpy(), group[~x.is_member].numpy()]
        values.append(terms[0].mean())
        variances.append(sum(reference.mean_variance(*pair) for pair in zip(terms, of_side)))
    value, deviation = np.mean(values), np.sqrt(sum(variances)) / 2
    result = crossfit_difference(a, b, alternative=alternative)
    is_two_sided = alternative == "two-sided"
    half_width = stats.norm.isf(0.025 if is_two_sided else 0.05) * deviation
    assert (result.value, result.lower) == pytest.approx((value, value - half_width), abs=1e-12)
    assert result.upper == pytest.approx(value + half_width if is_two_sided else 1.0, abs=1e-12)
    assert result.p_value == pytest.approx(stats.norm.sf(value / deviation) * (2 if is_two_sided else 1))


@pytest.mark.parametrize(("tail", "num_blocks"), [(0.1, 1), (0.025, 2)])
def test_reach_is_the_one_of_the_docs_with_the_same_draws(tail, num_blocks):
    blocks = [halves_of(np.random.default_rng(5 + block), 3 - block, shift=0.5, correlation=0.2) for block in range(num_blocks)]
    draws = bootstrap_generator("choice", 9).normal(size=(NUM_DRAWS, sum(len(block[0].candidates) for block in blocks)))
    shifts = [sign * shift for shift in range(1, 9) for sign in (1, -1)]
    tables = [[in_tables(half) for half in block] for block in blocks]
    expected = reference.choice_quantiles(tables, tail, draws, shifts)
    assert choice_reach(blocks, tail, seed=9) == pytest.approx(expected, abs=1e-9)
    assert expected[0] > stats.norm.isf(tail) * 1.02


def distance(half, *other):
    """Of an AUROC from chance, or of two from each other, in standard deviations."""
    terms = [reference.placements(*in_tables(each)[0]) for each in (half, *other)]
    member, heldout = (sides[0] - sum(sides[1:]) for sides in zip(*terms))
    spread = np.var(member, ddof=1) / len(member) + np.var(heldout, ddof=1) / len(heldout)
    return (member.mean() - (0 if other else 0.5)) / np.sqrt(spread)


@pytest.mark.parametrize("shift", [0.0, 0.2, 0.5, -0.5])
@pytest.mark.parametrize("num_fitted", [1, 3])
def test_reach_of_a_fit_is_the_one_of_the_docs_with_the_same_draws(shift, num_fitted):
    draws = bootstrap_generator("fit", 9).normal(size=(NUM_DRAWS, num_fitted))
    shifts = [sign * step for step in range(1, 9) for sign in (1, -1)]
    one, other = (halves_of(np.random.default_rng(seed), 1, shift=shift, num_fitted=num_fitted) for seed in (28, 29))
    other = [replace(half, score=half.score - half.is_member * 0.6) for half in other]
    perfect = Half(torch.arange(60.0), torch.arange(60) >= 30, num_fitted=num_fitted)
    for blocks, distances in (
        ([one], [distance(half) for half in one]),
        ([one, other], [distance(*pair) for pair in zip(one, other)]),
        # What has no spread says nothing of how far it is.
        ([[one[0], perfect]], [distance(one[0]), 0]),
    ):
        expected = reference.fit_quantiles(np.mean(distances), 0.05, draws, shifts)
        assert choice_reach(blocks, 0.05, seed=9) == pytest.approx(expected, abs=1e-9)


def test_bounds_go_as_far_as_the_reach_says_and_the_p_value_agrees_with_them():
    a, b = halves_of(np.random.default_rng(6), 5), halves_of(np.random.default_rng(7), 5, shift=0.6)
    below, above = choice_reach([a], 0.025, seed=4)
    narrow = crossfit_auroc([replace(half, score=half.reported, chosen=0) for half in a])
    wide, odds = crossfit_auroc(a, seed=4), lambda share: np.log(share / (1 - share))
    normal = stats.norm.isf(0.025)
    for end, reach in (("lower", below), ("upper", above)):
        distances = [odds(getattr(each, end)) - odds(each.value) for each in (wide, narrow)]
        assert distances[0] / distances[1] == pytest.approx(reach / normal)
    for confidence in (0.5, 0.8, 0.9, 0.95, 0.99):
        for alternative in ("two-sided", "greater"):
            for pair in ((a, b), (b, a)):
                found = crossfit_difference(*pair, confidence=confidence, alternative=alternative)
                is_left_out = found.lower > 0 or (alternative == "two-sided" and found.upper < 0)
                assert is_left_out == (found.p_value < 1 - confidence)


def test_exchanging_the_halves_changes_nothing():
    a, b = halves_of(np.random.default_rng(8), 5), halves_of(np.random.default_rng(9), 3, shift=0.6)
    assert crossfit_auroc(a) == crossfit_auroc(a[::-1])
    assert crossfit_difference(a, b) == crossfit_difference(a[::-1], b[::-1])
    rates, exchanged = crossfit_rates(a, [0.3, 0.8]), crossfit_rates(a[::-1], [0.8, 0.3])
    assert (rates.tpr, rates.fpr) == (exchanged.tpr, exchanged.fpr)


def test_increasing_maps_of_each_candidate_on_each_half_change_nothing():
    halves = halves_of(np.random.default_rng(10), 3)
    maps = [lambda x: 4000 + 3 * x, torch.exp, lambda x: x**3]
    mapped = [
        replace(half, score=torch.stack([maps[(row + place) % 3](half.candidates[row]) for row in range(3)]))
        for place, half in enumerate(halves)
    ]
    assert crossfit_auroc(mapped) == crossfit_auroc(halves)
    assert crossfit_difference(mapped, halves).value == 0.0
    assert crossfit_auroc([replace(half, area=auroc(half.score, half.is_member)) for half in halves]) == crossfit_auroc(halves)


def test_order_of_the_samples_changes_nothing():
    halves, shuffled = halves_of(np.random.default_rng(24), 3, decimals=1), []
    for half in halves:
        order = torch.from_numpy(np.random.default_rng(25).permutation(len(half.is_member)))
        shuffled.append(replace(half, score=half.score[:, order], is_member=half.is_member[order]))
    found, expected = crossfit_auroc(shuffled), crossfit_auroc(halves)
    assert (found.lower, found.value, found.upper) == pytest.approx((expected.lower, expected.value, expected.upper), abs=1e-9)


def test_a_candidate_that_is_never_chosen_or_the_same_twice_adds_nothing():
    score, is_member = make(np.random.default_rng(11), 1, 60)
    rest, _ = make(np.random.default_rng(12), 1, 60)
    spare = quantile_error(0.025, stats.norm.pdf(1.96))
    for other in (-score, score):
        halves = crosswise(
            [torch.cat([score, other]), torch.cat([rest, -rest if other is not score else rest])], [is_member] * 2
        )
        assert choice_reach([halves], 0.025) == pytest.approx((1.96, 1.96), abs=spare)


def test_orientation_at_chance_has_its_closed_form_as_a_choice_and_as_a_fit():
    # Members stand among held-out evenly: AUROC one half. Both halves' errors come out with the sign that they agree on, as
    # (|x| + |y|) / sqrt(2), or with its opposite: P(error > q) = (1 - (2 Phi(q) - 1)^2) / 2.
    score = torch.arange(160.0)
    is_member = (score + score // 2) % 2 == 0
    assert auroc(score, is_member) == 0.5
    exact = stats.norm.ppf((1 + 0.95**0.5) / 2)
    spare = quantile_error(0.025, 2 * (2 * stats.norm.cdf(exact) - 1) * stats.norm.pdf(exact))
    chosen = choice_reach([[Half(torch.stack([score, -score]), is_member)] * 2], 0.025)
    fitted = choice_reach([[Half(score, is_member, num_fitted=1)] * 2], 0.025)
    assert chosen == pytest.approx((exact, exact), abs=spare)
    assert fitted == pytest.approx((exact, exact), abs=spare)


def test_fitted_coefficients_cost_what_the_signal_leaves_open():
    chance = torch.arange(400.0)
    is_member = (chance + chance // 2) % 2 == 0
    reaches = [choice_reach([[Half(chance, is_member, num_fitted=num)] * 2], 0.025)[0] for num in (0, 1, 2, 5, 30)]
    assert reaches == sorted(reaches)
    assert reaches[-1] <= 2**0.5 * stats.norm.isf(0.025)
    assert reaches[-1] >= 1.35 * stats.norm.isf(0.025)
    strong = [
        choice_reach([[Half(chance + shift * is_member, is_member, num_fitted=5)] * 2], 0.025)[0] for shift in (0, 60, 200)
    ]
    assert strong == sorted(strong, reverse=True)
    assert strong[-1] < 1.05 * stats.norm.isf(0.025)


def test_choice_and_fit_together_reach_no_further_than_halves_that_err_alike():
    score, is_member = make(np.random.default_rng(13), 3, 100, shift=0.0, correlation=0.0)
    halves = [Half(score, is_member, num_fitted=20)] * 2
    assert choice_reach([halves], 0.025) == pytest.approx((2**0.5 * stats.norm.isf(0.025),) * 2)
    assert choice_widening(halves) == pytest.approx(2**0.5)
    assert choice_widening(halves, 0.3) == 1.0


def test_the_widening_of_a_test_is_the_reach_below_in_normal_quantiles():
    halves = halves_of(np.random.default_rng(26), 4, shift=0.6, correlation=0.0)
    for confidence in (0.7, 0.95):
        reaches = [choice_reach([halves], 1 - confidence, seed=seed) for seed in range(3)]
        assert len({*reaches, *(reach[::-1] for reach in reaches)}) == 6, "both sides and all seeds differ"
        widenings = [choice_widening(halves, confidence, seed=seed) for seed in range(3)]
        assert widenings == pytest.approx([below / stats.norm.isf(1 - confidence) for below, _ in reaches])
        assert choice_widening(halves, confidence) == widenings[0]
    assert choice_widening(halves, 0.5) == 1.0


@pytest.mark.parametrize("group", [None, torch.arange(80) // 3, np.arange(80) // 3])
def test_some_samples_of_a_half_are_a_half_of_these_samples(group):
    whole, rows = halves_of(np.random.default_rng(27), 3)[0], torch.arange(80) % 5 > 1
    whole = replace(whole, group=group, num_fitted=2, area=auroc(whole.score, whole.is_member))
    some = whole.among(rows)
    those = None if group is None else torch.as_tensor(group)[rows]
    expected = Half(whole.score[:, rows], whole.is_member[rows], whole.chosen, num_fitted=2, group=those)
    assert np.array_equal(some.areas, expected.areas)
    assert np.array_equal(some.deviations, expected.deviations)
    assert crossfit_auroc([some]) == crossfit_auroc([expected])
    assert choice_reach([[some] * 2], 0.1) == choice_reach([[expected] * 2], 0.1)
    assert whole.among(torch.ones(80, dtype=torch.bool)) is whole


def test_covariance_over_the_candidates_is_that_of_single_candidates_and_of_a_part_of_many():
    for grouped in (False, True):
        score, is_member = make(np.random.default_rng(14), 2, 2400, shift=0.5)
        group = torch.arange(4800) // 2 if grouped else None
        whole, part = (_covariance_with(limit, Half(score, is_member, group=group)) for limit in (10**6, 1000))
        sides = [SideResampler(2400, None if group is None else group[:2400].numpy())] * 2
        for row in range(2):
            terms = reference.placements(*in_tables(Half(score[row], is_member))[0])
            expected = sum(side.mean_variance(term) for side, term in zip(sides, terms))
            assert whole[row, row] == pytest.approx(expected)
        # Of 800 samples (600 groups) a side, terms of kurtosis at most 3: four standard errors of a variance.
        assert part == pytest.approx(whole, rel=0, abs=4 * np.sqrt(2 / 600) * whole.max())


def _covariance_with(limit, half):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.import_module("ldm_privacy.metrics.half"), "_MAX_UNITS", limit)
        return half.deviations @ half.deviations.T


@pytest.mark.parametrize("label", [None, np.array([7, 3, 3, 9, 7, 3, 4])])
def test_covariance_of_means_is_that_of_sums_and_differences(label):
    side, rows = SideResampler(7, label), np.random.default_rng(15).normal(size=(2, 7))
    deviations = side.mean_deviations(rows)
    covariance = deviations @ deviations.T
    assert np.diag(covariance) == pytest.approx([side.mean_variance(row) for row in rows])
    expected = (side.mean_variance(rows[0] + rows[1]) - side.mean_variance(rows[0] - rows[1])) / 4
    assert covariance[0, 1] == pytest.approx(expected)


def test_halves_without_spread_get_the_mean_of_bounds_that_hold_together():
    is_member = torch.arange(60) < 30
    perfect, tied = Half(is_member.double(), is_member), Half(torch.zeros(60), is_member)
    usual, lonely = (
        halves_of(np.random.default_rng(16), 1, sizes=(30, 30))[0],
        Half(torch.tensor([1.0, 0.5, 3.0]), torch.arange(3) < 1),
    )
    for pair in ((perfect, perfect), (perfect, tied), (tied, usual), (usual, perfect), (usual, lonely)):
        each = [auroc_interval(half.reported, half.is_member, confidence=0.95) for half in pair]
        found = crossfit_auroc(pair, confidence=0.9)
        expected = np.mean([[one.lower, one.value, one.upper] for one in each], axis=0)
        assert (found.lower, found.value, found.upper) == pytest.approx(expected, abs=1e-12)
    assert crossfit_auroc([perfect, perfect]).upper == 1.0
    assert crossfit_auroc([perfect, perfect]).lower == pytest.approx(0.0125 ** (1 / 30))


def test_difference_of_halves_without_spread():
    is_member = torch.arange(60) < 30
    perfect, tied = Half(is_member.double(), is_member), Half(torch.zeros(60), is_member)
    usual, other = (halves_of(np.random.default_rng(seed), 1, sizes=(30, 30))[0] for seed in (17, 18))
    same = crossfit_difference([usual, perfect], [usual, perfect])
    assert (same.value, same.lower, same.upper, same.p_value) == (0.0, 0.0, 0.0, 1.0)
    assert crossfit_difference([usual] * 2, [usual] * 2, alternative="greater").upper == 1.0
    # One half says nothing new: half the other's difference, half its width.
    plain, half = auroc_difference(usual.reported, other.reported, is_member), crossfit_difference([usual, tied], [other, tied])
    assert (half.lower, half.value, half.upper) == pytest.approx((plain.lower / 2, plain.value / 2, plain.upper / 2))
    for alternative in ("two-sided", "greater"):
        options = {"confidence": 0.975, "alternative": alternative}
        each = [auroc_difference(x.reported, y.reported, is_member, **options) for x, y in ((perfect, tied), (usual, other))]
        found = crossfit_difference([perfect, usual], [tied, other], alternative=alternative)
        expected = np.mean([[one.lower, one.value, one.upper] for one in each], axis=0)
        assert (found.lower, found.value, found.upper) == pytest.approx(expected, abs=1e-12)
        assert found.p_value == min(1.0, 2 * min(one.p_value for one in each))


def test_rates_of_both_halves_are_counted_together():
    halves, thresholds = halves_of(np.random.default_rng(19), 3), (0.4, 1.1)
    flagged = [half.reported > threshold for half, threshold in zip(halves, thresholds)]
    hits = [sum(int(flag[half.is_member == side].sum()) for flag, half in zip(flagged, halves)) for side in (True, False)]
    rates = crossfit_rates(halves, thresholds, confidence=0.8)
    assert rates.tpr == clopper_pearson(hits[0], 95, confidence=0.8)
    assert rates.fpr == clopper_pearson(hits[1], 95, confidence=0.8)
    assert rates.thresholds == thresholds
    groups = [torch.arange(80) // 4, torch.arange(110) // 5 + 100]
    grouped = [replace(half, group=group) for half, group in zip(halves, groups)]
    expected = tpr_at_threshold(
        torch.cat(flagged), torch.cat([h.is_member for h in halves]), 0.5, group=torch.cat(groups), seed=2
    )
    assert crossfit_rates(grouped, thresholds, seed=2).tpr == expected.tpr


def test_widening_of_a_test_is_a_factor_of_its_deviation():
    generator = np.random.default_rng(20)
    suspect, heldout = (torch.from_numpy(generator.normal(shift, size=50)) for shift in (0.4, 0.0))
    plain, wide = welch_verdict(suspect, heldout), welch_verdict(suspect, heldout, widening=1.3)
    assert wide.difference - wide.lower == pytest.approx(1.3 * (plain.difference - plain.lower))
    assert (wide.effect_size, plain.p_value < wide.p_value < 0.5) == (plain.effect_size, True)
    whole = p_value_by_set_size(suspect, heldout, [50], num_draws=3, widening=1.3)[0]
    assert (whole.median, whole.quantile_10) == pytest.approx((wide.p_value, wide.p_value))


def test_what_a_half_says_of_itself():
    half, other = (halves_of(np.random.default_rng(seed), 2, sizes=(2, 2))[0] for seed in (30, 31))
    both = [
        replace(each, score=torch.tensor(score), is_member=torch.tensor([True, True, False, False]), chosen=0)
        for each, score in ((half, [[1.0, 3.0, 2.0, 0.0]]), (other, [[2.0, 2.0, 2.0, 0.0]]))
    ]
    # Two samples a side are enough, and so is a spread on one of the sides.
    assert Part.of(both[:1]) == Part(0.75, pytest.approx(0.25 / 4 + 0.25 / 4), False)
    assert Part.of(both[1:]) == Part(0.75, pytest.approx(0.25 / 4), False)
    assert Part.of([both[0], both[0]]) == Part(0.0, 0.0, False)
    perfect = Half(torch.arange(4.0), torch.arange(4) > 1)
    assert Part.of([perfect]) == Part(1.0, 0.0, True)


@pytest.mark.parametrize("is_turned", [False, True])
def test_the_p_value_is_the_normal_one_in_units_of_the_reach_on_the_side_of_zero(is_turned):
    a, b = halves_of(np.random.default_rng(32), 6, correlation=0.1), halves_of(np.random.default_rng(33), 2, shift=0.8)
    a, b = (b, a) if is_turned else (a, b)
    parts = [Part.of(pair) for pair in zip(a, b)]
    value, deviation = np.mean([part.value for part in parts]), np.sqrt(sum(part.variance for part in parts)) / 2
    assert (value < 0) == is_turned
    for confidence in (0.3, 0.5, 0.6, 0.95):
        for alternative, sides in (("two-sided", 2), ("greater", 1)):
            tail = (1 - confidence) / sides
            reach, normal = choice_reach([a, b], tail), stats.norm.isf(tail)
            found = crossfit_difference(a, b, confidence=confidence, alternative=alternative)
            assert found.lower == pytest.approx(value - reach[0] * deviation)
            ratio = value / deviation * (normal / reach[int(value < 0)] if normal > 0 else 1.0)
            p_value = stats.norm.sf(ratio) if sides == 1 else 2 * stats.norm.sf(abs(ratio))
            assert found.p_value == pytest.approx(p_value)
            assert confidence > 0.4 or alternative == "two-sided" or reach == (normal, normal)
    skewed = choice_reach([a, b], 0.025)
    assert abs(skewed[0] - skewed[1]) > 1e-3


def test_a_difference_lies_between_its_ends():
    is_member = torch.tensor([True, True, False, False])
    high, low = (
        [Half(torch.tensor(score), is_member) for score in pair]
        for pair in (([3.0, 2.0, 1.0, 2.5], [3.0, 2.0, 1.0, 2.5]), ([0.0, 1.0, 3.0, 0.5], [0.0, 1.0, 3.0, 0.5]))
    )
    assert crossfit_difference(high, low, confidence=0.999999).upper == 1.0
    assert crossfit_difference(low, high, confidence=0.999999).lower == -1.0
    # With the same scores on both sides nothing is left to doubt.
    assert crossfit_difference(high, high, alternative="greater").p_value == 1.0
    tied = [Half(torch.zeros(4), is_member)] * 2
    perfect = [Half(is_member.double(), is_member)] * 2
    assert crossfit_difference(tied, perfect, alternative="greater").p_value == 1.0


def test_a_candidate_that_errs_little_is_studentised_as_the_others():
    """A half that errs much, one that errs little, and in both a candidate that errs less than the best one."""
    halves = halves_of(np.random.default_rng(34), 2, (25, 450), shift=0.3)
    sure = [torch.cat([half.score, half.score[:1] + 2 * half.is_member * (half.score[:1] > 0.5)]) for half in halves]
    halves = crosswise(sure, [half.is_member for half in halves])
    draws = bootstrap_generator("choice", 9).normal(size=(NUM_DRAWS, 3))
    shifts = [sign * shift for shift in range(1, 9) for sign in (1, -1)]
    expected = reference.choice_quantiles([[in_tables(half) for half in halves]], 0.1, draws, shifts)
    assert choice_reach([halves], 0.1, seed=9) == pytest.approx(expected, abs=1e-9)


def test_the_reach_is_in_units_of_the_deviation_however_small_that_is():
    # Nearly perfect candidates: the variance of an AUROC is below 1e-6.
    halves = halves_of(np.random.default_rng(35), 3, (450, 450), shift=4.6, correlation=0.1)
    assert max(Part.of([half]).variance for half in halves) < 1e-6
    draws = bootstrap_generator("choice", 9).normal(size=(NUM_DRAWS, 3))
    shifts = [sign * shift for shift in range(1, 9) for sign in (1, -1)]
    expected = reference.choice_quantiles([[in_tables(half) for half in halves]], 0.1, draws, shifts)
    assert choice_reach([halves], 0.1, seed=9) == pytest.approx(expected, abs=1e-6)
    assert expected[0] > 1.02 * stats.norm.isf(0.1)


def test_bad_input_is_named():
    halves = halves_of(np.random.default_rng(21), 2)
    with pytest.raises(ValueError, match="the same candidates"):
        crossfit_auroc([halves[0], replace(halves[1], score=halves[1].score[:1], chosen=0)])
    with pytest.raises(ValueError, match="one half or two"):
        crossfit_auroc([*halves, halves[0]])
    with pytest.raises(UserError, match=r"^confidence is"):
        crossfit_difference(halves, halves, confidence=1.0)
    with pytest.raises(UserError, match=r"^confidence is"):
        crossfit_auroc(halves, confidence=1.0)
    with pytest.raises(ValueError, match="zip"):
        crossfit_difference(halves, halves[:1])
    with pytest.raises(ValueError, match="zip"):
        crossfit_rates(halves, [0.5])
    with pytest.raises(ValueError, match="'two-sided' or 'greater'"):
        crossfit_difference(halves, halves, alternative="less")
    with pytest.raises(UserError, match="110 membership scores for 80 samples"):
        crossfit_difference(halves, halves[::-1])
    with pytest.raises(UserError, match="is nan"):
        crossfit_auroc([halves[0], replace(halves[1], score=halves[1].score * float("nan"))])


@pytest.mark.parametrize(("num_candidates", "correlation", "shift"), [(3, 0.0, 1.0), (10, 0.5, 0.0), (10, 0.5, 1.0)])
def test_interval_of_equal_candidates_covers(num_candidates, correlation, shift):
    generator, num_runs, truth = np.random.default_rng(22), 150, stats.norm.cdf(shift / 2**0.5)
    misses = 0
    for _ in range(num_runs):
        halves = halves_of(generator, num_candidates, (60, 60), shift=shift, correlation=correlation)
        misses += crossfit_auroc(halves).leaves_out(truth)
    assert misses <= stats.binom.isf(RARE, num_runs, 0.05)


def test_fits_that_know_nothing_raise_no_more_alarms_than_they_may():
    generator, num_runs = np.random.default_rng(23), 400
    misses, plain_misses = 0, 0
    for _ in range(num_runs):
        features = [make(generator, 4, 50, shift=0.0, correlation=0.0) for _ in range(2)]
        aims = [score[:, is_member].mean(dim=1) - score[:, ~is_member].mean(dim=1) for score, is_member in features]
        halves = [Half(aim @ score, is_member, num_fitted=4) for aim, (score, is_member) in zip(aims[::-1], features)]
        misses += crossfit_auroc(halves).leaves_out(0.5)
        plain_misses += crossfit_auroc([replace(half, num_fitted=0) for half in halves]).leaves_out(0.5)
    assert misses <= stats.binom.isf(RARE, num_runs, 0.05)
    assert plain_misses > stats.binom.isf(RARE, num_runs, 0.05)


def test_candidates_that_no_half_would_choose_are_not_simulated():
    generator = np.random.default_rng(26)
    near, far = halves_of(generator, 3, (300, 300)), [make(generator, 40, 300, shift=-0.5)[0] for _ in range(2)]
    both = [replace(half, score=torch.cat([half.score, rest])) for half, rest in zip(near, far)]
    assert choice_reach([both], 0.025) == choice_reach([near], 0.025)
    assert choice_reach([near], 0.025)[0] > 1.0001 * stats.norm.isf(0.025)
    best = np.mean([half.areas for half in near], axis=0).argmax()
    # Worse than the best one by little, but surely so, whatever the distances of the others are.
    worse = [half.candidates[best] - 0.3 * half.is_member for half in near]
    both = [replace(half, score=torch.cat([half.score, rest[None]])) for half, rest in zip(near, worse)]
    assert choice_reach([both], 0.025) == choice_reach([near], 0.025)


def test_a_difference_to_the_same_candidates_errs_by_no_rounding():
    a = halves_of(np.random.default_rng(27), 4, correlation=0.2)
    for tail in (0.025, 0.3):  # at .3 an error of 1 would count
        assert choice_reach([a, [replace(half) for half in a]], tail) == pytest.approx((stats.norm.isf(tail),) * 2)
    fitted = [replace(half, num_fitted=1) for half in a]
    assert choice_reach([fitted], 0.5) == (0.0, 0.0)
