"""The bound on epsilon: closed forms, an independent search, and how often it lies above the truth."""

import numpy as np
import pytest
import torch
from scipy import special, stats

from benchmarks.epsilon import MECHANISMS, folds_of, summed
from ldm_privacy.errors import UserError
from ldm_privacy.metrics import EpsilonBound, Guesses, Half, crossfit_epsilon, epsilon_lower_bound, guess_thresholds
from tests.reference import metrics as reference

RARE = 1e-4
COUNTS = [(1, 1), (5, 5), (3, 7), (60, 70), (400, 1000), (990, 1000), (24_000, 25_000)]


@pytest.mark.parametrize(("count", "shown"), [(125, 3.7), (500, 5.1), (2500, 6.7)])
def test_all_guesses_right_has_a_closed_form(count, shown):
    assert epsilon_lower_bound(count, count) == pytest.approx(-np.log(0.05 ** (-1 / count) - 1), rel=1e-9)
    assert round(epsilon_lower_bound(count, count), 1) == shown


@pytest.mark.parametrize(("num_correct", "num_guesses"), COUNTS)
@pytest.mark.parametrize("confidence", [0.9, 0.975])
def test_the_bound_is_where_so_many_right_guesses_begin_to_be_probable(num_correct, num_guesses, confidence):
    bound = epsilon_lower_bound(num_correct, num_guesses, confidence=confidence)
    chance = stats.binom.sf(num_correct - 1, num_guesses, special.expit(bound))
    if bound:
        assert chance == pytest.approx(1 - confidence, rel=1e-6)
    else:
        assert chance >= 1 - confidence, "nothing is refuted"


@pytest.mark.parametrize("delta", [1e-6, 1e-5, 4e-4])
@pytest.mark.parametrize(
    ("num_correct", "num_guesses", "num_coins"), [(60, 62, 250), (180, 200, 250), (47, 50, 100), (12, 20, 20)]
)
def test_with_delta_as_a_loop_over_the_published_p_value_finds_it(num_correct, num_guesses, num_coins, delta):
    bound = epsilon_lower_bound(num_correct, num_guesses, delta=delta, num_coins=num_coins)
    assert bound == pytest.approx(reference.epsilon_with_delta(num_correct, num_guesses, num_coins, delta, 0.05), abs=1e-6)
    assert bound < epsilon_lower_bound(num_correct, num_guesses) or bound == 0
    assert epsilon_lower_bound(num_correct, num_guesses, delta=1 / (2 * num_coins), num_coins=num_coins) == 0


@pytest.mark.parametrize("num_coins", [1, 7])
@pytest.mark.parametrize("delta", [0.0, 1e-3, 0.02])
def test_one_right_guess_has_a_closed_form(num_coins, delta):
    # P[right] + 2 num_coins delta P[wrong] = alpha; it takes a low confidence for the one guess to say anything.
    excess = 2 * num_coins * delta
    share = (0.7 - excess) / (1 - excess)
    bound = epsilon_lower_bound(1, 1, confidence=0.3, delta=delta, num_coins=num_coins)
    assert bound == pytest.approx(np.log(share / (1 - share)), rel=1e-9)


def test_no_guess_says_nothing_and_what_cannot_be_is_refused():
    assert epsilon_lower_bound(0, 0) == 0 == epsilon_lower_bound(0, 9) == epsilon_lower_bound(50, 100)
    assert epsilon_lower_bound(0, 1, confidence=0.1) == 0 == epsilon_lower_bound(0, 9, delta=1e-4)
    for counts, given in (((6, 5), "6 of 5 guesses right"), ((-1, 5), "-1 of 5"), ((2, 5), "2 of 5 guesses right, of 4 coins")):
        with pytest.raises(UserError, match=given):
            epsilon_lower_bound(*counts, num_coins=4 if counts[0] == 2 else None)
    for confidence in (0, 1, 95):
        with pytest.raises(UserError, match=f"confidence is {confidence}"):
            epsilon_lower_bound(5, 5, confidence=confidence)
    for delta in (-1e-9, 1):
        with pytest.raises(UserError, match="delta is"):
            epsilon_lower_bound(5, 5, delta=delta)
    for counts in ((1.5, 3, 3), (1, 2.5, 3), (1, 2, 2.5), (float("nan"), 2, 2)):
        with pytest.raises(UserError, match="are whole numbers"):
            epsilon_lower_bound(*counts[:2], num_coins=counts[2])
    with pytest.raises(UserError, match=r"^0 scores of 0 samples"):
        guess_thresholds(np.zeros(0), np.zeros(0, dtype=bool))
    with pytest.raises(UserError, match=r"^3 scores of 2 samples"):
        guess_thresholds(np.zeros(3), np.array([True, False]))
    with pytest.raises(UserError, match="no folds"):
        crossfit_epsilon([])


def drawn(count, *, shift=1.5, decimals=8, seed=0):
    generator = np.random.default_rng(seed)
    is_member = generator.random(count) < 0.5
    return (generator.normal(size=count) + shift * is_member).round(decimals), is_member


@pytest.mark.parametrize("decimals", [8, 1, 0])
@pytest.mark.parametrize("shift", [0.0, 1.5, 20.0])
def test_thresholds_are_the_best_pair_of_ranks(shift, decimals):
    score, is_member = drawn(90, shift=shift, decimals=decimals)
    lower, upper = guess_thresholds(score, is_member)
    assert lower < upper

    def right_and_guessed(lower, upper):
        as_member, as_heldout = score >= upper, score <= lower
        return int((as_member & is_member).sum() + (as_heldout & ~is_member).sum()), int((as_member | as_heldout).sum())

    def share(lower, upper):
        right, guessed = right_and_guessed(lower, upper)
        return stats.beta.ppf(0.05, right, guessed - right + 1) if right else 0.0

    ranks = [1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64, 90]
    rising, falling = np.sort(score), -np.sort(-score)
    pairs = [
        (low, high)
        for low in [-np.inf, *(rising[rank - 1] for rank in ranks)]
        for high in [np.inf, *(falling[rank - 1] for rank in ranks)]
        if low < high
    ]
    assert share(lower, upper) == pytest.approx(max(share(*pair) for pair in pairs), rel=1e-9)
    if shift == 20.0:
        assert right_and_guessed(lower, upper)[0] == right_and_guessed(lower, upper)[1] >= 64


def test_only_the_surest_of_each_side_are_guessed_where_all_others_are_wrong():
    for count in (2, 6):
        is_member = np.arange(count) < count // 2
        is_member[[0, -1]] = False, True
        assert guess_thresholds(np.arange(count), is_member) == (0, count - 1)


@pytest.mark.parametrize("confidence", [0.5, 0.95])
@pytest.mark.parametrize("num_folds", [1, 2])
def test_guesses_are_counted_one_by_one_at_thresholds_for_the_level_of_their_half(num_folds, confidence):
    """Scores are whole numbers, so many lie on a threshold."""
    for seed in range(10):
        sides = [drawn(90, shift=1.0, decimals=0, seed=each) for each in (2 * seed, 2 * seed + 1)]
        halves = [Half(*map(torch.from_numpy, side)) for side in sides]
        found = crossfit_epsilon([tuple(halves), tuple(halves[::-1])][:num_folds], confidence=confidence)
        for place, (chooses, reports) in enumerate([sides, sides[::-1]][:num_folds]):
            lower, upper = guess_thresholds(*chooses, confidence=1 - (1 - confidence) / num_folds)
            guesses = [(each >= upper, is_in) for each, is_in in zip(*reports) if each >= upper or each <= lower]
            right = sum(guess == is_in for guess, is_in in guesses)
            assert found.halves[place] == Guesses(right, len(guesses), 90, lower, upper)


def test_a_group_is_one_coin():
    score, is_member = drawn(60, seed=1)
    unit = np.repeat(np.arange(60), np.arange(60) % 4 + 1)
    unit = unit[np.random.default_rng(2).permutation(len(unit))]

    def fold(*halves):
        return [(halves[0], halves[1]), (halves[1], halves[0])]

    def half(rows, **group):
        return Half(torch.from_numpy(score[rows]), torch.from_numpy(is_member[rows]), **group)

    single = crossfit_epsilon(fold(half(np.arange(30)), half(np.arange(30, 60))))
    first, second = unit[unit < 30], unit[unit >= 30]
    groups = fold(*(half(each, group=torch.from_numpy(each)) for each in (first, second)))
    for mine, theirs in zip(crossfit_epsilon(groups).halves, single.halves):
        assert (mine.num_correct, mine.num_guesses, mine.num_coins) == (theirs.num_correct, theirs.num_guesses, 30)
    assert crossfit_epsilon(groups).value == single.value > 0


def test_one_fold_has_the_whole_level_two_have_half_of_it_each():
    halves = (Guesses(40, 42, 60, -1.0, 1.0), Guesses(30, 30, 50, -1.0, 1.0))
    assert EpsilonBound.of(halves[:1], confidence=0.9).value == epsilon_lower_bound(40, 42, confidence=0.9)
    both = EpsilonBound.of(halves, confidence=0.9)
    each = [epsilon_lower_bound(half.num_correct, half.num_guesses, confidence=0.95) for half in halves]
    assert (both.value, both.best) == (max(each), halves[int(np.argmax(each))])
    assert both.most == epsilon_lower_bound(both.best.num_coins, both.best.num_coins, confidence=0.95)
    tested = both.at(1e-4)
    assert tested.value == max(
        epsilon_lower_bound(half.num_correct, half.num_guesses, confidence=0.95, delta=1e-4, num_coins=half.num_coins)
        for half in halves
    )
    assert (tested.delta, tested.at(0.0)) == (1e-4, both)
    assert tested.most == epsilon_lower_bound(*2 * [tested.best.num_coins], confidence=0.95, delta=1e-4) < both.most


def test_a_half_has_no_part_in_its_own_thresholds():
    (a, is_a), (b, is_b) = drawn(80, seed=3), drawn(80, seed=4)
    first = (Half(torch.from_numpy(a), torch.from_numpy(is_a)), Half(torch.from_numpy(b), torch.from_numpy(is_b)))
    turned = (first[0], Half(torch.from_numpy(b), torch.from_numpy(~is_b)))
    one, other = (crossfit_epsilon([fold]).halves[0] for fold in (first, turned))
    assert (one.lower, one.upper, one.num_guesses) == (other.lower, other.upper, other.num_guesses)
    assert one.num_correct + other.num_correct == one.num_guesses


@pytest.mark.parametrize(("name", "truth"), [("flips", 1.0), ("brightness", 0.0)])
def test_bounds_lie_above_the_truth_no_more_often_than_they_may(name, truth):
    generator, num_simulations = np.random.default_rng(0), 1000
    bounds = [crossfit_epsilon(folds_of(MECHANISMS[name, truth], 200, generator)) for _ in range(num_simulations)]
    most = stats.binom.isf(RARE, num_simulations, 0.05)
    assert sum(bound.value > truth for bound in bounds) <= most
    if name == "brightness":
        assert sum(summed(bound) > truth for bound in bounds) > most, "right guesses of both halves can be added after all"


def test_many_coins_come_near_the_truth():
    (bound,) = (crossfit_epsilon(folds_of(MECHANISMS["flips", 2.0], 40_000, np.random.default_rng(5))) for _ in range(1))
    # A half has 20,000 guesses at most; the bound is below the truth by some two standard errors of a half's logit each way.
    error = 1 / np.sqrt(20_000 * special.expit(2.0) * special.expit(-2.0))
    assert 2.0 - 6 * error < bound.value < 2.0 + 2 * error
