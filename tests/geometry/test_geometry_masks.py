"""Mask rules: counts, ties, the published masks, what each ranks by."""

import math

import numpy as np
import pytest
import torch

from ldm_privacy.audit.samples import AuditedSamples
from ldm_privacy.errors import UserError
from ldm_privacy.geometry.masks import (
    KeepAll,
    KeepLowestInfluence,
    KeepRandom,
    KeepTopInfluence,
    keep_ladder,
    keep_largest,
    num_kept,
)
from ldm_privacy.randomness import uniform
from ldm_privacy.registry import MASK_RULES
from tests.reference.geometry import percentile_mask


def influence(batch=5, seed=0, shape=(4, 8, 8)):
    return torch.rand(batch, *shape, generator=torch.Generator().manual_seed(seed))


def test_percentile_rule_reproduces_the_published_masks(shared_file):
    arrays = np.load(shared_file("reference/attacks.npz"))
    log_influence = torch.tensor(arrays["log_influence"]).reshape(12, 4, 8, 8)
    for value in (log_influence, log_influence.exp()):
        mask = KeepTopInfluence(0.6, rule="percentile")(value, torch.arange(12)).flatten(1)
        assert np.array_equal(mask.numpy(), arrays["keep_mask"])
        assert (mask.sum(1) == 153).all()


@pytest.mark.parametrize("keep_fraction", [0.05, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.9, 0.99])
@pytest.mark.parametrize("size", [16, 101, 256])
@pytest.mark.parametrize("levels", [None, 7])
def test_percentile_rule_is_numpys(keep_fraction, size, levels):
    value = influence(shape=(1, 1, size)).double()
    if levels:
        value = (value * levels).floor()
    mask = KeepTopInfluence(keep_fraction, rule="percentile")(value, torch.arange(5))
    expected = percentile_mask(value.flatten(1).numpy(), round(100 * (1 - keep_fraction)))
    assert np.array_equal(mask.flatten(1).numpy(), expected)
    if not levels:
        for control in (KeepLowestInfluence, KeepRandom):
            control_mask = control(keep_fraction, rule="percentile")(value, torch.arange(5))
            assert (control_mask.flatten(1).sum(1).numpy() == expected.sum(1)).all()


@pytest.mark.parametrize("rule", [KeepTopInfluence, KeepLowestInfluence, KeepRandom])
@pytest.mark.parametrize("size", [16, 50, 64, 256])
def test_exact_counts(rule, size):
    value = influence(shape=(1, 1, size))
    value[0] = 1.0
    for percent in range(10, 101, 5):
        mask = rule(percent / 100)(value, torch.arange(5))
        assert mask.dtype == torch.bool
        assert mask.shape == value.shape
        assert (mask.flatten(1).sum(1) == round(percent / 100 * size)).all()


def test_ties_go_to_the_lower_index():
    value = torch.tensor([3.0, 1.0, 3.0, 1.0, 3.0, 1.0]).reshape(1, 1, 2, 3)
    top = KeepTopInfluence(4 / 6)(value, torch.arange(1)).flatten().tolist()
    assert top == [True, True, True, False, True, False]
    low = KeepLowestInfluence(4 / 6)(value, torch.arange(1)).flatten().tolist()
    assert low == [True, True, False, True, False, True]


def test_top_and_lowest_share_out_the_dimensions():
    value, index = influence(), torch.arange(5)
    assert torch.equal(KeepTopInfluence(0.25)(value, index), ~KeepLowestInfluence(0.75)(value, index))
    kept = value[KeepTopInfluence(0.25)(value, index)].reshape(5, -1).amin(1)
    dropped = value.masked_fill(KeepTopInfluence(0.25)(value, index), 0).flatten(1).amax(1)
    assert (kept > dropped).all()


def test_random_masks_belong_to_seed_and_sample():
    value, index = influence(), torch.tensor([4, 8, 15, 16, 23])
    mask = KeepRandom(0.6, seed=1)(value, index)
    assert torch.equal(mask[[2, 0]], KeepRandom(0.6, seed=1)(value[:2] + 1, index[[2, 0]]))
    assert not torch.equal(mask, KeepRandom(0.6, seed=2)(value, index))
    assert not torch.equal(mask[0], mask[1])


def test_random_masks_keep_every_dimension_equally_often():
    samples = 4000
    share = KeepRandom(0.6)(torch.zeros(samples, 1, 4, 5), torch.arange(samples)).double().mean(0)
    assert ((share - 0.6).abs() < 5 * (0.6 * 0.4 / samples) ** 0.5).all()


@pytest.mark.parametrize("name", list(MASK_RULES))
def test_fraction_one_keeps_all(name):
    rule = MASK_RULES.get(name)
    options = [{}] if name == "all" else [{"keep_fraction": 1.0}, {"keep_fraction": 1.0, "rule": "percentile"}]
    for option in options:
        built = rule(**option)
        assert built.keep_fraction == 1.0
        assert built(influence(), torch.arange(5)).all()


def test_a_ladder_is_its_masks_from_one_sort():
    value = (7 * influence()).floor()
    fractions = [0.1, 0.5, 0.33, 1.0]
    ladder = keep_ladder(value, fractions)
    for step, fraction in zip(ladder, fractions):
        assert torch.equal(step, KeepTopInfluence(fraction)(value, torch.arange(5)))
        expected = np.zeros((5, 256), dtype=bool)
        order = np.argsort(-value.flatten(1).numpy(), axis=1, kind="stable")[:, : round(fraction * 256)]
        np.put_along_axis(expected, order, True, axis=1)
        assert np.array_equal(step.flatten(1).numpy(), expected)
        assert torch.equal(step, keep_largest(value, round(fraction * 256)))
    with pytest.raises(UserError, match="keep_fraction"):
        keep_ladder(value, [0.5, 1.2])


def test_every_rule_says_what_it_ranks_by():
    ranks_by = {name: MASK_RULES.get(name).ranks_by for name in MASK_RULES}
    known = {"all": "nothing", "random": "nothing", "deviation": "deviation", "top": "influence", "lowest": "influence"}
    assert ranks_by == known
    assert {name for name in MASK_RULES if MASK_RULES.get(name).is_control} == {"lowest", "random", "deviation"}


def test_rules_that_rank_by_nothing_work_where_there_is_no_influence():
    samples = AuditedSamples(influence() - 0.5, torch.tensor([True, True, False, False, False]))
    assert samples.keep(KeepAll()).all()
    value, index = influence(), torch.arange(5)
    assert torch.equal(samples.keep(KeepRandom(0.6, seed=1)), KeepRandom(0.6, seed=1)(value, index))
    unseen = torch.full_like(value, float("nan"))
    assert torch.equal(samples.keep(KeepRandom(0.6, seed=1)), KeepRandom(0.6, seed=1)(unseen, index))
    for rule in (KeepTopInfluence(), KeepLowestInfluence()):
        with pytest.raises(UserError, match="influence"):
            samples.keep(rule)


def test_wrong_arguments_of_masks():
    for rule in (KeepTopInfluence, KeepLowestInfluence, KeepRandom):
        for fraction in (0.0, -0.1, 1.01, float("nan")):
            with pytest.raises(UserError, match="keep_fraction"):
                rule(fraction)
        with pytest.raises(UserError, match="rule"):
            rule(rule="quantile")
        with pytest.raises(UserError, match="keeps none of 256"):
            rule(0.001)(influence(), torch.arange(5))
    assert KeepAll().keep_fraction == 1.0


def test_random_masks_are_draws_that_belong_to_the_sample():
    index = torch.tensor([5, 2, 9])
    order = KeepRandom(0.5, seed=7).order(torch.zeros(3, 2, 3, 3), index)
    assert torch.equal(order, uniform("mask", (7, index), (2, 3, 3)))


def test_a_percentile_need_not_be_whole():
    for fraction in (0.8765, 0.6249, 0.333):
        assert num_kept(1000, fraction, "percentile") == 999 - math.floor(999 * (1 - fraction))
        assert num_kept(1000, fraction) == num_kept(1000, fraction, "count") == round(1000 * fraction)
