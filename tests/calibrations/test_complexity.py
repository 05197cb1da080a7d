"""Complexity against least squares by numpy, and what it must not change."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ldm_privacy.calibrations.complexity import Complexity
from tests.calibrations.synthetic import KEY, area, make_known


def test_the_score_is_what_least_squares_on_the_held_out_samples_that_choose_leaves():
    known = make_known(slope=-0.7)
    found = Complexity()(known)
    fitted = (known.chooses & ~known.is_member).numpy()
    for place, level in enumerate(known.now[KEY].numpy()):
        features = np.stack([np.ones(len(level)), known.complexity.numpy()], axis=1)
        (intercept, slope), *_ = np.linalg.lstsq(features[fitted], level[fitted], rcond=None)
        residual = level - features @ [intercept, slope]
        # The level's mean stays: a score is compared with scores of its own kind alone.
        np.testing.assert_allclose(found.score[place] - residual, np.mean(level[fitted]), rtol=1e-9)
        assert found.coefficients[f"slope{place}"] == pytest.approx(slope, rel=1e-9)
    assert list(found.coefficients) == ["slope0", "slope1", "slope2"]
    assert found.num_fitted == 0


@pytest.mark.parametrize("slope", [-3.0, 0.5, 100.0])
def test_a_multiple_of_the_complexity_in_the_level_changes_nothing(slope):
    known = make_known()
    more = {key: level + slope * known.complexity for key, level in known.now.items()}
    found, other = Complexity()(known), Complexity()(replace(known, now=more))
    difference = other.score - found.score
    np.testing.assert_allclose(difference - difference[:, :1], 0, atol=1e-9 * abs(slope))
    for name, value in found.coefficients.items():
        assert other.coefficients[name] == pytest.approx(value + slope)


@pytest.mark.parametrize("complexity", [0.0, 7.7])
def test_images_of_one_complexity_keep_their_level(complexity):
    known = make_known()
    same = replace(known, complexity=torch.full_like(known.complexity, complexity))
    found = Complexity()(same)
    assert torch.equal(found.score, known.now[KEY])
    assert set(found.coefficients.values()) == {0.0}


def test_members_have_no_part_in_the_slope():
    known = make_known(slope=1.0)
    wild = torch.where(known.is_member, known.now[KEY] * 50 - 9 * known.complexity, known.now[KEY])
    assert Complexity()(replace(known, now={KEY: wild})).coefficients == Complexity()(known).coefficients


def test_it_wins_what_the_complexity_hides():
    """Signal .5 in noise of variance 1 + .09 + 1.5^2, of which complexity takes the last part away: two known AUROCs."""
    known = make_known(20_000, slope=-1.5)
    for score, variance in ((known.level, 1.09 + 1.5**2), (Complexity()(known).score[known.place], 1.09)):
        expected = float(torch.special.ndtr(torch.tensor(0.5 / (2 * variance) ** 0.5)))
        # 5,000 a side: the standard deviation of an AUROC is at most 1 / (2 sqrt(5000)).
        assert area(score, known) == pytest.approx(expected, abs=4 / (2 * 5000**0.5) / 3**0.5)
