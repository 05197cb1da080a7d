"""What a reference takes away: an image's difficulty, whatever it is; with nothing chosen and nothing fitted."""

from dataclasses import replace

import pytest
import torch

from ldm_privacy.calibrations.ratio import Ratio
from ldm_privacy.calibrations.reference import Reference
from tests.calibrations.synthetic import KEY, area, make_known

BOTH = pytest.mark.parametrize("calibration", [Reference(), Ratio()], ids=["reference", "ratio"])


def test_each_timestep_minus_the_references_and_their_mean():
    known = make_known(40)
    mine, theirs = known.now[KEY].tolist(), known.reference[KEY].tolist()
    by_timestep = [[a - b for a, b in zip(*rows)] for rows in zip(mine, theirs)]
    assert Reference()(known).score.tolist() == by_timestep
    mean = [sum(column) / 3 for column in zip(*by_timestep)]
    assert Ratio()(known).score[0].tolist() == pytest.approx(mean, rel=1e-12)


@BOTH
def test_a_model_that_is_its_own_reference_ranks_nobody(calibration):
    known = make_known(signal=2.0)
    found = calibration(replace(known, reference=known.now))
    assert (found.score == 0).all()
    assert area(found.score[0], known) == 0.5


@BOTH
def test_how_difficult_an_image_is_in_both_leaves_the_score(calibration):
    """A factor of the statistic is a term of its logarithm."""
    known = make_known()
    harder = torch.randn(len(known.is_member), dtype=torch.float64, generator=torch.Generator().manual_seed(5)) * 10

    def scaled(levels):
        return {key: level + harder for key, level in levels.items()}

    found = calibration(replace(known, now=scaled(known.now), reference=scaled(known.reference))).score
    torch.testing.assert_close(found, calibration(known).score, rtol=0, atol=1e-13)


@BOTH
def test_nothing_is_fitted_and_no_label_looked_at(calibration):
    known = make_known()
    found = calibration(known)
    assert (found.num_fitted, found.coefficients) == (0, {})
    assert torch.equal(calibration(replace(known, is_member=~known.is_member, chooses=~known.chooses)).score, found.score)


def test_where_difficulty_hides_members_the_reference_shows_them_and_all_timesteps_show_more():
    """Standard deviation of the difference: .3 * sqrt(2) at a timestep, that over sqrt(3) in the mean of three."""
    known = make_known(8000, signal=0.5)
    tolerance = 4 * (2 / 12 / 2000) ** 0.5

    def expected(spread):
        return float(torch.special.ndtr(torch.tensor(0.5 / spread / 2**0.5)))

    assert area(known.level, known) == pytest.approx(expected(1.09**0.5), abs=tolerance)
    assert area(Reference()(known).score[known.place], known) == pytest.approx(expected(0.3 * 2**0.5), abs=tolerance)
    assert area(Ratio()(known).score[0], known) == pytest.approx(expected(0.3 * (2 / 3) ** 0.5), abs=tolerance)
