"""Forecasts from runs that follow the law, of which everything is known."""

import itertools
import math

import pytest

from ldm_privacy.evidence.forecast import (
    FACTOR,
    OTHER_FACTOR,
    Pilot,
    basis,
    forecast,
    own_constant,
    pilot_of,
    watched_keys,
    without_pilot,
)

KEY = "sima/all"
AREA = f"memorization/{KEY}"
SMALL = Pilot("small", 400, 100, 75, 100)


def audited(truth, *, num_members, batch_size, every, last, name="pilot"):
    """What audits every so many epochs know of a training that memorizes at step `truth`."""
    steps = math.ceil(num_members / batch_size)
    looks = range(0, last + 1, every)
    by = next((epoch for epoch in looks if epoch * steps >= truth), None)
    before = [epoch for epoch in looks if epoch * steps < truth]
    return Pilot(name, num_members, batch_size, max(before, default=0), by)


def test_twice_the_members_take_twice_the_steps_and_the_same_epochs():
    once, twice = (forecast([SMALL], num_members=num, batch_size=100) for num in (400, 800))
    assert (once.expected, once.lower, once.upper) == (100, 75 / FACTOR, 100 * FACTOR)
    assert (twice.expected, twice.lower, twice.upper) == (100, 75 / FACTOR, 100 * FACTOR)
    assert str(once) == "about step 400 (epoch 100), between 150 and 800"
    assert str(twice) == "about step 800 (epoch 100), between 300 and 1,600"


def test_a_batch_that_does_not_divide_the_members_changes_no_epoch():
    ahead = forecast([Pilot("small", 400, 64, 75, 100)], num_members=2000, batch_size=64)
    assert str(ahead) == "about step 3,200 (epoch 100), between 1,200 and 6,400"


def test_at_another_batch_size_the_steps_a_member_stay_and_the_bounds_hold_both_readings():
    larger, smaller = (forecast([SMALL], num_members=400, batch_size=batch) for batch in (200, 50))
    assert larger.expected * larger.steps_per_epoch == 400
    assert (larger.lower, larger.upper) == (75 / FACTOR, 200 * FACTOR)
    assert smaller.expected * smaller.steps_per_epoch == 400
    assert (smaller.lower, smaller.upper) == (37.5 / FACTOR, 100 * FACTOR)
    full = forecast([Pilot("tiny", 50, 100, 10, 20)], num_members=50, batch_size=500)
    assert full.expected == 20, "a batch of all members is of their number"


def test_what_is_not_the_number_of_members_widens_the_bounds_and_is_named():
    other = Pilot("other", 400, 100, 75, 100, ("denoiser.learning_rate",))
    ahead = forecast([other], num_members=400, batch_size=100)
    assert (ahead.lower, ahead.upper) == (75 / FACTOR / OTHER_FACTOR, 100 * FACTOR * OTHER_FACTOR)
    assert "other differs in denoiser.learning_rate (4 times)" in basis([SMALL, other])
    assert "differs" not in basis([SMALL])


@pytest.mark.parametrize("every", [1, 7, 25, 400])
@pytest.mark.parametrize("batch_sizes", [(64, 64), (64, 256), (256, 64)])
def test_runs_that_follow_the_law_are_within_the_bounds(every, batch_sizes):
    """The constant may differ by the factor, either way, and the law may be that of steps or that of epochs."""
    for constant, ratio, of_epochs in itertools.product((0.3, 1.6, 20.0), (1.01 / FACTOR, 1.0, 0.99 * FACTOR), (False, True)):
        pilot = audited(constant * 512, num_members=512, batch_size=batch_sizes[0], every=every, last=1200)
        assert pilot.by is not None or constant == 20.0
        truth = constant * ratio * 4096 * (batch_sizes[0] / batch_sizes[1] if of_epochs else 1.0)
        run = audited(truth, num_members=4096, batch_size=batch_sizes[1], every=every, last=20_000)
        ahead = forecast([pilot], num_members=4096, batch_size=batch_sizes[1])
        assert ahead.lower * ahead.steps_per_epoch <= truth
        assert ahead.upper is None or truth <= ahead.upper * ahead.steps_per_epoch
        assert (ahead.upper is None) is (pilot.by is None)
        assert ahead.outcome(run).endswith(("inside the bounds", "still open"))


def test_two_pilots_bound_by_the_earliest_and_the_latest_of_them():
    late = Pilot("late", 200, 100, 150, 300)
    ahead = forecast([late, SMALL], num_members=800, batch_size=100)
    assert (ahead.expected, ahead.lower, ahead.upper) == (200, 75 / FACTOR, 300 * FACTOR)


def test_a_pilot_without_an_onset_bounds_from_below():
    ahead = forecast([Pilot("short", 400, 100, 60, None)], num_members=800, batch_size=100)
    assert (ahead.expected, ahead.lower, ahead.upper) == (None, 60 / FACTOR, None)
    assert str(ahead) == "not before about step 240 (epoch 30)"
    assert ahead.sentence(KEY, 30) == (
        "Memorization (onset of sima/all) is not to be expected within this training's 240 steps: not before about step 240 "
        "(epoch 30)."
    )
    assert "no pilot says when it comes" in ahead.sentence(KEY, 31)


def test_a_pilot_that_went_on_beyond_the_others_leaves_the_end_open_and_one_that_stopped_before_says_nothing():
    for after, upper in ((99, 100 * FACTOR), (100, None)):
        ahead = forecast([SMALL, Pilot("other", 400, 100, after, None)], num_members=400, batch_size=100)
        assert (ahead.expected, ahead.lower, ahead.upper) == (100, 75 / FACTOR, upper)
    assert str(ahead) == "about step 400 (epoch 100), not before 150; how late it may come is open"
    assert "may end before it" in ahead.sentence(KEY, 10_000)


def test_each_length_of_a_training_has_its_sentence():
    ahead = forecast([SMALL], num_members=3200, batch_size=100)
    when = "about step 3,200 (epoch 100), between 1,200 and 6,400"
    expected = f"Memorization (onset of sima/all) is to be expected {when}: this training has"
    assert ahead.sentence(KEY, 250) == f"{expected} 8,000 steps."
    assert ahead.sentence(KEY, 150) == f"{expected} 4,800 steps and may end before it."
    assert ahead.sentence(KEY, 50) == f"{expected} 1,600 steps and probably ends before it."
    assert ahead.sentence(KEY, 30) == (
        f"Memorization (onset of sima/all) is not to be expected within this training's 960 steps: {when}."
    )


def test_each_outcome_has_its_words():
    ahead = forecast([SMALL], num_members=400, batch_size=100)
    for (after, by), words in {
        (75, 100): "none by step 300 (epoch 75), found by step 400 (epoch 100): inside the bounds",
        (25, 50): "inside the bounds",  # from the last audit before the bounds to the first within
        (0, 37): "earlier than forecast",
        (190, 250): "inside the bounds",
        (200, 250): "later than forecast",
        (190, None): "so it is still open",
        (200, None): "none by step 800 (epoch 200), later than forecast",
    }.items():
        assert ahead.outcome(Pilot("run", 400, 100, after, by)).endswith(words)


def history(looks, onset=None):
    """Looks: epoch -> lower bound of the rise; the onset is known at the last."""
    curves = {(epoch, f"{AREA}/rise_lower"): lower for epoch, lower in looks.items()}
    return {(0, f"{AREA}/auroc"): 0.5} | curves | ({(max(looks), f"{AREA}/onset_epoch"): onset} if onset else {})


@pytest.mark.parametrize(
    ("looks", "onset", "after", "by"),
    [
        ({25: -1, 50: 1, 75: 1}, 50.0, 25, 50),
        ({25: 1, 50: 1}, 25.0, 0, 25),
        ({25: 1, 50: -1, 75: 1, 100: 1}, 75.0, 50, 75),
        ({25: -1, 50: -1}, None, 50, None),
        ({25: -1, 50: 1}, None, 25, None),  # 50 may turn out to be the onset
        ({25: 1}, None, 0, None),
    ],
)
def test_the_curves_of_a_run_say_between_which_audits_its_onset_lies(looks, onset, after, by):
    pilot = pilot_of(history(looks, onset), KEY, "run", num_members=400, batch_size=100)
    assert (pilot.after, pilot.by) == (after, by)
    assert watched_keys(history(looks, onset)) == [KEY]


def test_curves_without_looks_are_no_pilot():
    for curves in ({}, {(0, f"{AREA}/auroc"): 0.5}, history({25: -1.0})):
        assert pilot_of(curves, "loss/all", "run", num_members=400, batch_size=100) is None


def test_a_run_foretells_larger_ones():
    assert own_constant(SMALL, KEY) == (
        "At this batch size and learning rate the onset of sima/all took 0.75 to 1 steps a member; on 4,000 members it is to "
        "be expected about step 4,000 (epoch 100), between 1,500 and 8,000."
    )
    assert "took more than 0.75 steps a member; on 4,000 members it is to be expected not before about step 1,500" in (
        own_constant(Pilot("run", 400, 100, 75, None), KEY)
    )


def test_without_a_pilot_it_is_said_how_to_make_one_where_that_is_less_work():
    says, make, mark = without_pilot(25_000, 1000)
    assert "not known without a pilot" in says
    assert "data.num_members=2500 data.num_heldout=1000" in make
    assert "10% of the training time" in make
    assert "step 7,500,000" in mark
    assert "its own pilot" in without_pilot(256, 256)[1]
