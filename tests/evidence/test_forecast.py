"""Forecasts from runs that follow the law, of which everything is known."""

import itertools
import math

import pytest

from ldm_privacy.evidence.forecast import (
    ERRORS,
    FACTOR,
    OTHER_FACTOR,
    Pilot,
    PilotLook,
    Size,
    forecast,
    pilot_of,
    watched_keys,
)
from ldm_privacy.evidence.forecast_words import basis, own_constant, without_pilot
from ldm_privacy.watch.onset import OnsetDetector

KEY = "sima/all"
AREA = f"memorization/{KEY}"


def size(num_members, batch_size=100, audited=400):
    return Size(num_members, batch_size, (audited, audited))


def sudden(after, by=None, *, members=400, batch_size=100, name="small", differs=()):
    """A pilot of which no error can move the onset: far below 0 at one audit, far above at the next two."""
    looks = {after: PilotLook(-9.0, 0.1, 0.05)} if after else {}
    looks |= {} if by is None else dict.fromkeys((by, by + 1), PilotLook(9.0, 0.1, 0.05))
    return Pilot(name, size(members, batch_size), looks, differs)


SMALL = sudden(75, 100)


def test_twice_the_members_take_twice_the_steps_and_the_same_epochs():
    once, twice = (forecast([SMALL], size(members)) for members in (400, 800))
    assert (once.expected, once.lower, once.upper) == (100, 75 / FACTOR, 100 * FACTOR)
    assert (twice.expected, twice.lower, twice.upper) == (100, 75 / FACTOR, 100 * FACTOR)
    assert str(once) == "about step 400 (epoch 100), between 150 and 800"
    assert str(twice) == "about step 800 (epoch 100), between 300 and 1,600"


def test_a_batch_that_does_not_divide_the_members_changes_no_epoch():
    ahead = forecast([sudden(75, 100, batch_size=64)], size(2000, 64))
    assert str(ahead) == "about step 3,200 (epoch 100), between 1,200 and 6,400"


def test_at_another_batch_size_the_steps_a_member_stay_and_the_bounds_hold_both_readings():
    larger, smaller = (forecast([SMALL], size(400, batch)) for batch in (200, 50))
    assert larger.expected * larger.steps_per_epoch == 400
    assert (larger.lower, larger.upper) == (75 / FACTOR, 200 * FACTOR)
    assert smaller.expected * smaller.steps_per_epoch == 400
    assert (smaller.lower, smaller.upper) == (37.5 / FACTOR, 100 * FACTOR)
    full = forecast([sudden(10, 20, members=50)], size(50, 500))
    assert full.expected == 20, "a batch of all members is of their number"


def test_what_is_not_the_number_of_members_widens_the_bounds_and_is_named():
    other = sudden(75, 100, name="other", differs=("denoiser.learning_rate",))
    ahead = forecast([other], size(400))
    assert (ahead.lower, ahead.upper) == (75 / FACTOR / OTHER_FACTOR, 100 * FACTOR * OTHER_FACTOR)
    assert "other differs in denoiser.learning_rate (4 times)" in basis([SMALL, other])
    assert "differs" not in basis([SMALL])


def growing(constant, *, members, audited, batch_size=64, every=10, last=1000, error=0.0):
    """A training that follows the law, its rise one of step / (constant x members), which audits see with an error."""
    here, width = size(members, batch_size, audited), 2.5 * math.sqrt(1 / audited)
    looks = {}
    for epoch in range(every, last + 1, every):
        time = epoch / (constant * min(batch_size, members))  # step / (constant x members)
        looks[epoch] = PilotLook(0.4 * (1 - math.exp(-time)) ** 2 + error * width / 2, width, width / 2)
    return Pilot("run", here, looks)


@pytest.mark.parametrize("audited", [(100, 100), (100, 1000), (400, 50)])
def test_runs_that_follow_the_law_are_within_the_bounds(audited):
    """Errors of both audits at the edge of what the bounds hold, and a constant that differs by not quite the factor."""
    for angle, other in itertools.product(range(0, 360, 30), (1.05 / FACTOR, 1.0, 0.95 * FACTOR)):
        errors = ERRORS * math.cos(math.radians(angle)), ERRORS * math.sin(math.radians(angle))
        pilot = growing(1.6, members=512, audited=audited[0], error=errors[0])
        run = growing(1.6 * other, members=4096, audited=audited[1], error=errors[1])
        ahead = forecast([pilot], run.size)
        assert ahead.outcome(run).endswith(("inside the bounds", "still open")), (angle, other)
        assert ahead.upper is None or run.onset()[1] is not None


def test_audits_of_more_images_find_an_onset_earlier():
    pilot = growing(1.6, members=512, audited=100)
    few, same, many = (forecast([pilot], size(512, 64, audited)).expected for audited in (30, 100, 1000))
    assert same == pilot.onset()[1]
    assert many < same
    assert few is None or few > same


def test_two_pilots_bound_by_the_earliest_and_the_latest_of_them():
    ahead = forecast([sudden(150, 300, members=200, name="late"), SMALL], size(800))
    assert (ahead.expected, ahead.lower, ahead.upper) == (200, 75 / FACTOR, 300 * FACTOR)


def test_a_pilot_without_an_onset_bounds_from_below():
    ahead = forecast([sudden(60)], size(800))
    assert (ahead.expected, ahead.lower, ahead.upper) == (None, 60 / FACTOR, None)
    assert str(ahead) == "not before about step 240 (epoch 30)"
    assert ahead.sentence(KEY, 30) == (
        "Memorization (onset of sima/all) is not to be expected within this training's 240 steps: not before about step 240 "
        "(epoch 30)."
    )
    assert "no pilot says when it comes" in ahead.sentence(KEY, 31)


def test_a_pilot_that_went_on_beyond_the_others_leaves_the_end_open_and_one_that_stopped_before_does_not():
    for after, upper in ((99, 100 * FACTOR), (100, None)):
        ahead = forecast([SMALL, sudden(after, name="other")], size(400))
        assert (ahead.expected, ahead.lower, ahead.upper) == (100, 75 / FACTOR, upper)
    assert str(ahead) == "about step 400 (epoch 100), not before 150; how late it may come is open"
    assert "may end before it" in ahead.sentence(KEY, 10_000)


def test_each_length_of_a_training_has_its_sentence():
    ahead = forecast([SMALL], size(3200))
    when = "about step 3,200 (epoch 100), between 1,200 and 6,400"
    expected = f"Memorization (onset of sima/all) is to be expected {when}: this training has"
    assert ahead.sentence(KEY, 250) == f"{expected} 8,000 steps."
    assert ahead.sentence(KEY, 150) == f"{expected} 4,800 steps and may end before it."
    assert ahead.sentence(KEY, 50) == f"{expected} 1,600 steps and probably ends before it."
    assert ahead.sentence(KEY, 30) == (
        f"Memorization (onset of sima/all) is not to be expected within this training's 960 steps: {when}."
    )


def test_each_outcome_has_its_words():
    ahead = forecast([SMALL], size(400))
    for (after, by), words in {
        (75, 100): "none by step 300 (epoch 75), found by step 400 (epoch 100): inside the bounds",
        (25, 50): "inside the bounds",  # from the last audit before the bounds to the first within
        (0, 37): "earlier than forecast",
        (190, 250): "inside the bounds",
        (200, 250): "later than forecast",
        (190, None): "so it is still open",
        (200, None): "none by step 800 (epoch 200), later than forecast",
    }.items():
        assert ahead.outcome(sudden(after, by)).endswith(words)


@pytest.mark.parametrize(
    ("lowers", "after", "by"),
    [
        ([-0.1, 0.1, 0.2], 25, 50),
        ([0.1, 0.2], 0, 25),
        ([0.1, -0.1, 0.1, 0.1], 50, 75),
        ([-0.1, -0.2], 50, None),
        ([-0.1, 0.1], 25, None),  # 50 may turn out to be the onset
        ([0.1], 0, None),
    ],
)
def test_the_curves_of_a_run_say_between_which_audits_its_onset_lies(lowers, after, by):
    curves, detector = {(0, f"{AREA}/auroc"): 0.5}, OnsetDetector()
    for epoch, lower in zip(range(25, 1000, 25), lowers):
        confidence = detector.confidence_at(detector.num_looks + 1)
        detector.update(epoch, lower)
        curves |= {(epoch, f"{AREA}/rise"): lower + 0.2, (epoch, f"{AREA}/rise_lower"): lower}
    pilot = pilot_of(curves, KEY, "run", size(400))
    assert pilot.onset() == (after, by)
    assert by == detector.onset_epoch
    newest = pilot.looks[pilot.last]
    assert math.erf(0.2 / newest.error / math.sqrt(2)) / 2 + 0.5 == pytest.approx(confidence)
    assert watched_keys(curves) == [KEY]


def test_curves_without_looks_are_no_pilot():
    for curves in ({}, {(0, f"{AREA}/auroc"): 0.5}, {(25, f"{AREA}/rise"): 0.1, (25, f"{AREA}/rise_lower"): 0.0}):
        assert pilot_of(curves, "loss/all", "run", size(400)) is None


def test_a_run_foretells_larger_ones():
    assert own_constant(SMALL).format(keys=KEY) == (
        "At this batch size and learning rate the onset of sima/all was found by 1 steps a member; on 4,000 members, with as "
        "many images audited, it is to be expected about step 4,000 (epoch 100), between 1,500 and 8,000."
    )
    unseen = own_constant(sudden(75))
    assert "was not found by 0.75 steps a member" in unseen
    assert unseen.endswith("not before about step 1,500 (epoch 38).")


def test_without_a_pilot_it_is_said_how_to_make_one_where_that_is_less_work():
    says, make, mark = without_pilot(25_000, 1000)
    assert "not known without a pilot" in says
    assert "data.num_members=2500 data.num_heldout=1000" in make
    assert "10% of the training time" in make
    assert "step 7,500,000" in mark
    assert "its own pilot" in without_pilot(256, 256)[1]
