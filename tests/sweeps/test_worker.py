"""Workers and trials: whoever is killed, each trial ends with one result."""

import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from ldm_privacy.runs.lock import writing
from ldm_privacy.sweeps.cells import lock_folder
from ldm_privacy.sweeps.journal import Journal
from ldm_privacy.sweeps.trial import DONE, FAILED, STOPPED, TAKEN, run_trial
from ldm_privacy.sweeps.worker import MOST_DEATHS, Worker, starter

ROOT = Path(__file__).resolve().parents[2]


def test_processes_are_killed_at_random_and_each_trial_ends_once(tmp_path):
    program = [sys.executable, str(ROOT / "tests" / "sweeps" / "chaos.py"), str(tmp_path), "30", "0"]
    done = subprocess.run(program, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 22
    trials = Journal(tmp_path).trials()
    assert len(trials) == 12
    assert {trial.state for trial in trials} == {"done"}, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "journal.log").read_text().splitlines()]
    ends = Counter(line["trial_id"] for line in lines if line["op_code"] == 6 and line["state"] == 1)
    assert [ends[trial.number] for trial in trials] == [1] * 12
    assert len((tmp_path / "ran").read_text().splitlines()) > 12  # some were killed, and run again


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path)
    journal.enqueue("mine", {"a": "1"}, [0])
    return journal


def never(trial):
    raise AssertionError("it ran")


def test_a_trial_that_another_process_runs_is_left_to_it(tmp_path, journal):
    place = lock_folder(tmp_path, "a", 0)
    with subprocess.Popen([sys.executable, "-c", HOLD, str(place)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        assert run_trial(tmp_path, "a", 0, never) == TAKEN
        other.communicate()
    assert run_trial(tmp_path, "a", 0, lambda trial: {"auroc": 0.5}) == DONE


HOLD = """
import sys
from pathlib import Path
from ldm_privacy.runs.lock import writing
with writing(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_trial_that_is_over_is_not_run_again(tmp_path, journal):
    journal.finish(journal.take(), {"auroc": 0.5})
    assert run_trial(tmp_path, "a", 0, never) == DONE


def test_a_failure_is_kept_with_its_last_line(tmp_path, journal, capfd):
    journal.take()

    def train(trial):
        raise ValueError("no such\nthing")

    assert run_trial(tmp_path, "a", 0, train) == FAILED
    assert journal.trials()[0].why == "ValueError: no such"
    assert "Traceback" in capfd.readouterr().err


def test_a_stopped_trial_can_go_on(tmp_path, journal):
    journal.take()

    def train(trial):
        raise KeyboardInterrupt

    assert run_trial(tmp_path, "a", 0, train) == STOPPED
    assert journal.trials()[0].state == "taken"
    with writing(lock_folder(tmp_path, "a", 0)):
        pass


class Ended:
    """The process of a trial, which ended with that code."""

    def __init__(self, code):
        self.code = code

    def poll(self):
        return self.code

    def send_signal(self, number):
        raise ProcessLookupError


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (-9, "was killed by signal 9, 5 times (9: for want of memory?)"),
        (1, "ended with code 1, 5 times: see {log}"),
    ],
)
def test_a_trial_that_is_killed_again_and_again_where_it_was_counts_as_failed(tmp_path, journal, code, why):
    started = []

    def start(trial):
        started.append(trial)
        return Ended(code)

    assert Worker(tmp_path, start, wait=0)() == DONE
    assert len(started) == MOST_DEATHS
    assert journal.trials()[0].why == why.format(log=lock_folder(tmp_path, "a", 0) / "output.log")


def test_a_worker_that_is_asked_to_stop_asks_its_trial_once_each_time(tmp_path, journal):
    sent = []

    class Running:
        def poll(self):
            worker.stop()
            return STOPPED if len(sent) == 2 else None

        def send_signal(self, number):
            sent.append(number)

    worker = Worker(tmp_path, lambda trial: Running(), wait=0)
    assert worker() == STOPPED
    assert sent == [signal.SIGINT, signal.SIGINT]
    assert journal.trials()[0].state == "taken"


def test_what_a_trial_prints_is_kept_behind_what_it_printed_before(tmp_path, journal):
    trial = journal.take()
    for _ in range(2):
        process = starter(tmp_path, "no_such_module")(trial)
        assert process.wait() == 1
    printed = (lock_folder(tmp_path, "a", 0) / "output.log").read_text()
    assert printed.count("No module named no_such_module") == 2
