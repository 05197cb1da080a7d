"""The table of claims: which captions are compared, and what each number is."""

import pytest
import torch
from scipy import stats

from ldm_privacy.metrics import auroc, mean_difference, pearson
from ldm_privacy.trajectories import Guided, TrajectoryReport, claims_of
from ldm_privacy.types import Intervals

GROUPS = ("members",) * 6 + ("repeated",) * 7 + ("heldout",) * 8


def report(groups=GROUPS, unit=None, **columns):
    """Every quantity is its own random numbers, unless given."""
    count, generator = len(groups), torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    names = ["d1", "d2", "gain", "error", "gap", "gap_mean", "similarity"]
    names += [f"{name}_{kind}" for name in ("d1", "d2") for kind in ("early", "wrong")]
    guided = {
        scale: Guided(
            clean=draw(count, 5),
            noise=draw(count, 5),
            mean=None,
            r_squared=draw(count, 5),
            nearest=torch.zeros(count, 2, dtype=torch.int64),
            nearest_similarity=draw(count, 2),
            own_is_nearest=torch.tensor([[True, False]] * count),
            other_is_nearest=torch.tensor([[False, False]] * count),
            cosine=draw(count, 2),
            condition_number=draw(count, 2),
            **{name: draw(count) for name in names} | columns,
        )
        for scale in (1.0, 7.5)
    }
    index = torch.arange(count)
    num_members = torch.tensor([each != "heldout" for each in groups]).long()
    return TrajectoryReport(
        "epoch 3", index, groups, None, num_members, index if unit is None else unit, draw(6), 5, "paired", guided
    )


def test_memorized_captions_are_the_planted_ones_and_are_compared_with_the_heldout():
    it = report()
    table = {(each.kind, each.quantity, each.guidance_scale): each for each in claims_of(it, Intervals(0.9, 200, 3))}
    assert len(table) == 2 * (1 + 5 + 6)
    for scale, guided in it.guided.items():
        repeated, heldout = slice(6, 13), slice(13, None)
        test = stats.ttest_ind(guided.error[repeated], guided.error[heldout], equal_var=False)
        found = table["error", "error", scale].estimate
        assert found.value == pytest.approx(float(guided.error[repeated].mean() - guided.error[heldout].mean()))
        assert (found.lower, found.upper) == pytest.approx(tuple(test.confidence_interval(0.9)))
        score = torch.cat([guided.gap[repeated], guided.gap[heldout]])
        assert table["separation", "gap", scale].estimate.value == float(auroc(score, torch.arange(15) < 7))
        found = table["correlation", "d2_wrong", scale].estimate
        assert found.value == pytest.approx(stats.pearsonr(guided.d2_wrong, guided.similarity).statistic)
        assert found == pearson(guided.d2_wrong, guided.similarity, confidence=0.9, num_bootstrap=200, seed=3)
    assert {each.chance for each in table.values() if each.kind == "separation"} == {0.5}
    assert {each.chance for each in table.values() if each.kind != "separation"} == {0.0}


def test_without_planted_duplicates_members_stand_for_the_memorized():
    it = report(GROUPS[:6] + GROUPS[13:])
    error = next(each for each in claims_of(it) if each.kind == "error").estimate
    values = it.guided[1.0].error
    assert error.value == pytest.approx(float(values[:6].mean() - values[6:].mean()))


def test_what_has_no_interval_is_left_out():
    assert {each.kind for each in claims_of(report(("members",) * 5))} == {"correlation"}
    assert not claims_of(report(("members", "heldout", "heldout")))
    constant = claims_of(report(similarity=torch.zeros(21, dtype=torch.float64)))
    assert {each.kind for each in constant} == {"error", "separation"}
    assert {each.quantity for each in claims_of(report(d1=torch.ones(21))) if each.kind == "correlation"} == {
        *("d2", "d1_early", "d2_early", "d1_wrong", "d2_wrong")
    }


def test_captions_with_the_same_words_count_once():
    """Every caption twice, in the same words and with the same numbers, tells no more than once."""
    half = ("repeated",) * 5 + ("heldout",) * 6
    alone = report(half)
    twice = report(tuple(each for each in half for _ in range(2)), unit=torch.arange(11).repeat_interleave(2))
    for name, value in vars(alone.guided[7.5]).items():
        if value is not None:
            object.__setattr__(twice.guided[7.5], name, value.repeat_interleave(2, 0))
    one, two = (
        {(each.kind, each.quantity): each.estimate for each in it.claims if each.guidance_scale == 7.5} for it in (alone, twice)
    )
    assert {*one} == {*two}
    for name in (("error", "error"), ("correlation", "d1")):
        assert (two[name].lower, two[name].upper) == pytest.approx((one[name].lower, one[name].upper))


def test_words_of_both_sides_are_cut_and_a_side_of_one_unit_says_nothing():
    half = ("repeated",) * 5 + ("heldout",) * 6
    across = report(half, unit=torch.tensor([0, 1, 2, 3, 4, 0, 1, 2, 5, 6, 7]))
    assert {each.kind for each in across.claims} == {"error", "separation", "correlation"}
    assert across.against_heldout("repeated")[2] is None, "within a side each is alone"
    assert not report(half, unit=torch.tensor([0] * 5 + [1] * 6)).claims


def test_claims_and_means_are_made_once():
    it = report()
    assert it.claims is it.claims
    assert it.means is it.means
    assert it.means["heldout"][7.5]["k"] == float(it.guided[7.5].gain[13:].mean())
    assert it.numbers()["claims"] is it.claims


def test_replicated_is_a_share_of_seeds():
    assert report().guided[1.0].replicated.tolist() == [0.5] * 21


def test_the_correlations_interval_is_that_of_a_plain_bootstrap():
    generator = torch.Generator().manual_seed(1)
    first = torch.randn(60, generator=generator)
    second = 0.8 * first + 0.5 * torch.randn(60, generator=generator)
    found = pearson(first, second, num_bootstrap=4000)
    reference = stats.pearsonr(first.double(), second.double())
    assert found.value == pytest.approx(reference.statistic, abs=1e-12)
    method = stats.BootstrapMethod(n_resamples=4000, method="percentile", rng=0)
    interval = reference.confidence_interval(0.95, method=method)
    # The standard error of a 2.5 % point of 4,000 draws is about .04 of their spread, here .03; five of them, twice drawn.
    assert (found.lower, found.upper) == pytest.approx(tuple(interval), abs=0.01)


def test_groups_are_resampled_whole():
    first = torch.randn(20, generator=torch.Generator().manual_seed(2)).repeat_interleave(8)
    second = first + torch.randn(20, generator=torch.Generator().manual_seed(3)).repeat_interleave(8)
    alone, whole = pearson(first, second), pearson(first, second, group=torch.arange(20).repeat_interleave(8))
    assert whole.upper - whole.lower > 2 * (alone.upper - alone.lower)
    assert whole.value == alone.value


def test_a_difference_of_two_single_captions_has_no_bounds():
    found = mean_difference(torch.tensor([3.0, 1.0]), torch.tensor([True, False]))
    assert (found.value, found.lower, found.upper) == (2.0, -torch.inf, torch.inf)


def test_one_side_of_the_interval_alone():
    value, side = torch.randn(30, generator=torch.Generator().manual_seed(4)), torch.arange(30) < 12
    one, two = mean_difference(value, side, confidence=0.95, is_one_sided=True), mean_difference(value, side, confidence=0.9)
    assert one.lower == pytest.approx(two.lower)
    assert one.upper == torch.inf
    assert mean_difference(side.float(), side) == mean_difference(side.double(), side)
    assert mean_difference(side.float(), side).upper == 1.0
