"""Laws of every registered calibration."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from ldm_privacy.calibrations.base import MIN_SAMPLES, Calibration, check_halves_suffice
from ldm_privacy.errors import UserError
from ldm_privacy.registry import CALIBRATIONS
from tests.calibrations.synthetic import KEY, area, make_known

EVERY = pytest.mark.parametrize("name", list(CALIBRATIONS))


def made(name, **options):
    return CALIBRATIONS.get(name)(**options)


@EVERY
@pytest.mark.parametrize("audits", [0, 1, 5])
@pytest.mark.parametrize("count", [40, 400])
def test_scores_are_finite_numbers_in_double_precision_one_for_each_sample(name, audits, count):
    calibration, known = made(name), make_known(count, audits=audits)
    assert isinstance(calibration, Calibration)
    found = calibration(known)
    assert found.score.shape == (3 if calibration.per_timestep else 1, count)
    assert found.score.dtype == torch.float64
    assert found.score.isfinite().all()
    assert all(isinstance(value, float) and np.isfinite(value) for value in found.coefficients.values())
    assert 0 <= found.num_fitted <= known.capacity


@EVERY
def test_a_calibration_is_printed_as_the_call_that_makes_it(name):
    calibration = made(name)
    again = eval(repr(calibration), {type(calibration).__name__: type(calibration)})
    assert vars(again) == vars(calibration)
    calibration.size, calibration.words = 3, "a, b"
    assert repr(calibration).endswith("size=3, words='a, b')")


@EVERY
def test_it_says_the_same_whatever_the_global_random_state(name):
    known, scores = make_known(), []
    for seed in (0, 1):
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
        scores.append(made(name)(known).score)
        assert torch.equal(torch.get_rng_state(), states[0])
        assert np.array_equal(np.random.get_state()[1], states[1])
        assert random.getstate() == states[2]
    assert torch.equal(*scores)


@EVERY
def test_what_it_is_given_stays_as_it_was(name):
    known, again = make_known(), make_known()
    made(name)(known)
    for key, level in known.now.items():
        assert torch.equal(level, again.now[key])
        assert torch.equal(known.reference[key], again.reference[key])
    assert torch.equal(known.complexity, again.complexity)
    assert torch.equal(known.chooses, again.chooses)


@EVERY
def test_only_those_that_choose_are_fitted_on(name):
    """Labels and levels of the others may be anything: what was fitted, and the scores of the rest, stay."""
    known = make_known()
    found, others = made(name)(known), ~known.chooses
    turned = made(name)(replace(known, is_member=known.is_member ^ others))
    assert turned.coefficients == found.coefficients
    assert torch.equal(turned.score, found.score)
    first = others & (torch.arange(len(others)) % 2 == 0)

    def wild(level):
        return torch.where(first, 1000 - 7 * level, level)

    changed = replace(
        known,
        now={key: wild(level) for key, level in known.now.items()},
        earlier=[{key: wild(level) for key, level in each.items()} for each in known.earlier],
        reference={key: wild(level) for key, level in known.reference.items()},
        complexity=wild(known.complexity),
    )
    other = made(name)(changed)
    assert other.coefficients == found.coefficients
    torch.testing.assert_close(other.score[:, ~first], found.score[:, ~first], rtol=1e-12, atol=1e-12)


@EVERY
def test_a_sample_has_the_score_that_it_has_whoever_else_does_not_choose(name):
    known = make_known()
    stays = known.chooses | (torch.arange(len(known.chooses)) % 3 > 0)

    def those(levels):
        return {key: level[..., stays] for key, level in levels.items()}

    fewer = replace(
        known,
        now=those(known.now),
        earlier=[those(each) for each in known.earlier],
        reference=those(known.reference),
        complexity=known.complexity[stays],
        is_member=known.is_member[stays],
        chooses=known.chooses[stays],
    )
    torch.testing.assert_close(made(name)(fewer).score, made(name)(known).score[:, stays], rtol=1e-9, atol=1e-9)


@EVERY
def test_it_looks_at_nothing_that_it_does_not_say_it_needs(name):
    calibration, known = made(name), make_known()
    found = calibration(known).score
    if not calibration.needs_history:
        assert torch.equal(calibration(replace(known, earlier=[])).score, found)
    if not calibration.needs_complexity:
        assert torch.equal(calibration(replace(known, complexity=None)).score, found)
    if not calibration.needs_reference:
        assert torch.equal(calibration(replace(known, reference=None)).score, found)
    if not calibration.needs_choice:
        assert torch.equal(calibration(replace(known, place=0, places=dict.fromkeys(known.now, 2))).score, found)
    seen = calibration.attacks(KEY, list(known.now))
    assert seen[0] == KEY
    now = {key: level for key, level in known.now.items() if key in seen}
    earlier = [{key: level for key, level in each.items() if key in seen} for each in known.earlier]
    reference = {key: level for key, level in known.reference.items() if key in seen}
    assert torch.equal(calibration(replace(known, now=now, earlier=earlier, reference=reference)).score, found)


@EVERY
def test_the_higher_score_is_the_members_whichever_way_round_history_was(name):
    known = make_known(4000, signal=2.0)
    place = known.place if made(name).per_timestep else 0
    assert area(made(name)(known).score[place], known) > 0.85


@EVERY
@pytest.mark.parametrize("shift", [-1.0, 1.0])
def test_a_shift_of_complexity_by_side(name, shift):
    """Members' images are more (less) complex, the level is mostly that, and no denoiser ever knew anything.

    The plain attack is far from .5 by what the images are alone, and so is history: earlier levels have the same shift, and
    their mean shows it no worse. Complexity takes it away: no label is in its line. A reference does, which has the same
    difficulty of each image. What is fitted with labels on levels that
    are free of it (calibrated, combined) is nearly so: the line of each of k features is off by its standard error, what that
    leaves of the shift is the same on both halves, and a regression finds it: members lie up to about
    shift * sqrt(k / held-out samples that chose) standard deviations higher. So such a split is to be mended, not calibrated.
    """
    known = make_known(8000, signal=0.0, slope=-1.0, shift=shift)
    calibration = made(name)
    found = calibration(known)
    # 2,000 a side: standard deviation of an AUROC that knows nothing.
    tolerance = 4 * (2 / 12 / 2000) ** 0.5
    plain = area(known.level, known)
    assert plain == pytest.approx(auroc_at(-shift / (1.09 + 1) ** 0.5), abs=tolerance)
    score = area(found.score[0 if len(found.score) == 1 else known.place], known)
    if calibration.needs_reference:
        assert abs(score - 0.5) < tolerance
    elif calibration.needs_complexity:
        left = auroc_at(abs(shift) * (max(1, found.num_fitted) / 2000) ** 0.5)
        assert 1 - left - tolerance < score < left + tolerance
        assert left < 0.53
    else:
        assert score > max(plain, 1 - plain) - tolerance


def auroc_at(separation):
    """Of two normal laws of one spread whose means lie so many standard deviations apart."""
    return float(torch.special.ndtr(torch.tensor(separation / 2**0.5)))


@pytest.mark.parametrize("cross_fit", [False, True])
@pytest.mark.parametrize("few", range(4))
def test_each_half_that_fits_needs_five_of_each_side(few, cross_fit):
    quarters = torch.tensor([[True, True], [True, False], [False, True], [False, False]])  # calibrates, is a member

    def check(count):
        counts = torch.full((4,), MIN_SAMPLES)
        counts[few] = count
        check_halves_suffice(*quarters.repeat_interleave(counts, 0).T, cross_fit=cross_fit)

    check(MIN_SAMPLES)
    check(MIN_SAMPLES + 1)
    if few >= 2 and not cross_fit:
        check(0)
        return
    for count in (0, MIN_SAMPLES - 1):
        with pytest.raises(UserError, match=f"has {count} {('members', 'held-out samples')[few % 2]},"):
            check(count)
