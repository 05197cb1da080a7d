"""Resampling of samples and groups against loops over them."""

import numpy as np
import pytest
import torch

from ldm_privacy.metrics.resampling import SideResampler, bootstrap_generator, clopper_pearson, percentiles, sides_of
from ldm_privacy.randomness import derive_seed
from tests.reference import metrics as reference

LABEL = np.array([7, 3, 3, 9, 7, 3, 4])


def test_units_are_samples_or_groups():
    assert SideResampler(5).num_units == 5
    assert SideResampler(7, LABEL).num_units == 4
    assert SideResampler(3, np.array([2, 2, 2])).num_units == 1


@pytest.mark.parametrize("label", [None, LABEL])
def test_a_draw_counts_the_units_of_its_stream(label):
    names = np.arange(7) if label is None else label
    drawn = np.random.default_rng(3).integers(len(set(names)), size=len(set(names)))
    units = sorted(set(names))
    counts = [sum(units[place] == name for place in drawn) for name in names]
    assert SideResampler(7, label).draw(np.random.default_rng(3)).tolist() == counts


@pytest.mark.parametrize("label", [None, LABEL])
def test_variance_of_a_mean_is_that_of_independent_units(label):
    term = np.random.default_rng(4).normal(size=7)
    found = SideResampler(7, label).mean_variance(term)
    assert found == pytest.approx(reference.mean_variance(term, np.arange(7) if label is None else label))
    if label is None:
        assert found == pytest.approx(term.var(ddof=1) / 7)


@pytest.mark.parametrize("grouped", [False, True])
def test_resamples_of_both_sides_come_from_one_stream_members_first(grouped):
    is_member = torch.tensor([True, False, True, False, False, True, False])
    group = torch.tensor([5, 2, 5, 2, 8, 6, 9]) if grouped else None
    sides = sides_of(is_member, group)
    assert sides.num_pairs == (2 if grouped else 3)
    assert (sides.member.num_units, sides.heldout.num_units) == ((2, 3) if grouped else (3, 4))
    generator = np.random.default_rng(derive_seed("bootstrap of a test", 5))
    resamples = list(sides.resamples("of a test", 3, 5))
    assert len(resamples) == 3
    for member, heldout in resamples:
        assert member.tolist() == sides.member.draw(generator).tolist()
        assert heldout.tolist() == sides.heldout.draw(generator).tolist()
    assert bootstrap_generator("of a test", 5).random() == np.random.default_rng(derive_seed("bootstrap of a test", 5)).random()


def test_percentiles_hold_the_central_draws():
    assert percentiles(np.arange(101.0), 0.9) == pytest.approx((5.0, 95.0))


def test_exact_interval_of_shares_that_are_no_whole_numbers_lies_in_between():
    # Groups are counted in place of samples, so hits may be a fraction.
    for num_hits in (0.0, 0.25, 0.5, 0.75, 1.0):
        found = clopper_pearson(num_hits, 1, confidence=0.9)
        assert found.value == num_hits
        assert (found.lower > 0, found.upper < 1) == (num_hits > 0, num_hits < 1)
    lowers, uppers = zip(*((each.lower, each.upper) for each in (clopper_pearson(hits / 4, 10) for hits in range(41))))
    assert list(lowers) == sorted(lowers)
    assert list(uppers) == sorted(uppers)
    assert clopper_pearson(1, 1, confidence=0.9).lower == pytest.approx(0.05)
    assert clopper_pearson(0, 1, confidence=0.9).upper == pytest.approx(0.95)
