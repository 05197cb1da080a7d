"""The journal: each cell and seed once, taken by one, ended once."""

import pytest

from ldm_privacy.errors import UserError
from ldm_privacy.sweeps.journal import Journal

CELLS = {"a": "hash of a", "b": "hash of b"}


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path)
    assert journal.enqueue("mine", CELLS, [0, 1]) == 4
    return journal


def pairs(journal, *states):
    return [(trial.cell, trial.seed) for trial in journal.trials() if trial.state in states]


def test_each_cell_and_seed_waits_once_all_cells_of_a_seed_first(journal, tmp_path):
    assert Journal(tmp_path).enqueue("mine", CELLS, [0, 1]) == 0
    assert pairs(journal, "waiting") == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]
    assert journal.name == "mine"


def test_cells_and_seeds_may_be_added(journal, tmp_path):
    assert Journal(tmp_path).enqueue("mine", {**CELLS, "c": "hash of c"}, [0, 1, 2]) == 5
    assert len(set(pairs(journal, "waiting"))) == 9


@pytest.mark.parametrize(
    ("cells", "seeds", "why"),
    [
        ({"a": "hash of a"}, [0, 1], r"its cell 'b' is none of this one"),
        ({**CELLS, "b": "other"}, [0, 1], r"its cell 'b' is trained otherwise"),
        (CELLS, [1, 2], r"this one has no seed 0"),
    ],
)
def test_another_sweeps_journal_is_refused_and_left_as_it_is(journal, cells, seeds, why):
    before = journal.path.read_bytes()
    with pytest.raises(UserError, match=rf"journal\.log: is the journal of another sweep: {why}\. Name another folder"):
        journal.enqueue("mine", cells, seeds)
    assert journal.path.read_bytes() == before


def test_two_that_ask_are_given_two(journal, tmp_path):
    other = Journal(tmp_path)
    taken = [each.take() for each in (journal, other, journal, other)]
    assert len({trial.number for trial in taken}) == 4
    assert journal.take() is None
    assert other.take() is None


def test_what_has_ended_cannot_end_again(journal, tmp_path):
    trial, other = journal.take(), Journal(tmp_path)
    journal.finish(trial, {"auroc": 0.75, "quality": 0.5})
    with pytest.raises(RuntimeError):
        other.fail(trial, "too late")
    found = other.trials()[0]
    assert (found.state, found.numbers, found.why) == ("done", {"auroc": 0.75, "quality": 0.5}, "")


def test_failed_ones_are_tried_again_when_that_is_asked_for(journal):
    journal.fail(journal.take(), "error: no")
    assert journal.trials()[0].why == "error: no"
    assert pairs(journal, "failed") == [("a", 0)]
    assert journal.retry_failed() == 1
    assert journal.retry_failed() == 0
    assert len(pairs(journal, "waiting")) == 4


def test_what_a_kill_left_half_written_is_dropped(journal, tmp_path):
    with journal.path.open("ab") as file:
        file.write(b'{"op_code":6,"worker_id":"x","tri')
    trial = Journal(tmp_path).take()
    assert trial.cell == "a"
    assert [each.state for each in journal.trials()] == ["taken", "waiting", "waiting", "waiting"]
    assert all(line.endswith("}") for line in journal.path.read_text().splitlines())


def test_a_file_that_is_no_journal_is_named(tmp_path):
    (tmp_path / "journal.log").write_text("one\ntwo\n")
    with pytest.raises(UserError, match=r"journal\.log: is no journal of a sweep"):
        Journal(tmp_path)
