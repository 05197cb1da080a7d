"""Cadences, and looking at several quantities one after the other."""

import pytest

from ldm_privacy.errors import UserError
from ldm_privacy.watch.watcher import Every, Look, Moment, Watcher, look_with, results_of


def moments(epochs, steps_per_epoch):
    """Every moment of a training, as a trainer tells of them."""
    yield Moment(0, 0)
    for epoch in range(epochs):
        for step in range(1, steps_per_epoch + 1):
            yield Moment(epoch, epoch * steps_per_epoch + step, is_epoch_end=False)
        yield Moment(epoch + 1, (epoch + 1) * steps_per_epoch, is_last=epoch + 1 == epochs)


class Recorder(Watcher):
    def __init__(self, every=None):
        super().__init__(every)
        self.seen = []

    def look(self, target, moment):
        self.seen.append(moment)
        return Look({"number": float(len(self.seen))})


@pytest.mark.parametrize(
    ("every", "epochs", "steps_per_epoch", "expected"),
    [
        (Every(epochs=1), 3, 4, [0, 4, 8, 12]),
        (Every(epochs=2), 5, 4, [0, 8, 16, 20]),
        (Every(epochs=9), 5, 4, [0, 20]),
        (Every(steps=1), 2, 3, [0, 1, 2, 3, 4, 5, 6]),
        (Every(steps=3), 2, 4, [0, 3, 6, 8]),
        (Every(steps=4), 2, 4, [0, 4, 8]),
        (Every(steps=100), 2, 4, [0, 8]),
        (None, 2, 4, [0, 4, 8]),
    ],
)
def test_looks_are_before_the_first_step_at_the_cadence_and_at_the_end(every, epochs, steps_per_epoch, expected):
    it = Recorder(every)
    for moment in moments(epochs, steps_per_epoch):
        look_with({"it": it}, None, moment)
    assert [moment.step for moment in it.seen] == expected
    assert it.num_looks(epochs, steps_per_epoch) == len(expected)
    assert it.last.step == epochs * steps_per_epoch


def test_a_resumed_watcher_does_not_look_at_its_last_step_again():
    it, again = Recorder(Every(steps=2)), Recorder(Every(steps=2))
    look_with({"it": it}, None, Moment(0, 2, is_epoch_end=False))
    again.load_full_state(it.full_state())
    assert look_with({"it": again}, None, Moment(0, 2, is_epoch_end=False)) == {}
    assert list(look_with({"it": again}, None, Moment(0, 4, is_epoch_end=False))) == ["it"]


def test_only_those_that_are_due_look():
    watchers = {"steps": Recorder(Every(steps=2)), "epochs": Recorder(Every(epochs=1))}
    assert list(look_with(watchers, None, Moment(0, 2, is_epoch_end=False))) == ["steps"]
    assert list(look_with(watchers, None, Moment(1, 3))) == ["epochs"]
    assert {name: look.series for name, look in look_with(watchers, None, Moment(2, 6)).items()} == {
        "steps": {"number": 2.0},
        "epochs": {"number": 2.0},
    }


def test_a_result_is_one_of_the_moment_that_it_was_found_at():
    class Finder(Recorder):
        in_evaluation = True

        def look(self, target, moment):
            self.result = moment.step
            return super().look(target, moment)

    watchers = {"often": Finder(Every(epochs=1)), "seldom": Finder(Every(epochs=2)), "aside": Recorder()}
    found = []
    for moment in (Moment(1, 3), Moment(2, 6), Moment(3, 9), Moment(3, 9, is_last=True)):
        look_with(watchers, None, moment)
        found.append(results_of(watchers, moment.step))
    both = {"often": 9, "seldom": 9}
    assert found == [{"often": 3}, {"often": 6, "seldom": 6}, {"often": 9}, both], "the last look is one of step 9 too"


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({}, "either epochs or steps"),
        ({"epochs": 1, "steps": 1}, "either"),
        ({"steps": 0}, "0 steps"),
        ({"epochs": -1}, "-1 epochs"),
    ],
)
def test_a_cadence_that_is_none_is_named(numbers, message):
    with pytest.raises(UserError, match=message) as caught:
        Every(**numbers)
    assert len(str(caught.value).splitlines()) == 1
