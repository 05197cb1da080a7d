"""The list is worked down whatever its items do, and nothing outlives its minutes."""

import contextlib
import json
import os
import select
import subprocess
import time
from pathlib import Path

import pytest

from benchmarks.gpu_day import work
from benchmarks.gpu_day.work import Call, Item, Record

WAIT = "import signal, sys\nsignal.signal(signal.SIGINT, lambda *_: sys.exit(130))\n"
STOPS = f"{WAIT}print('working', flush=True)\nsignal.pause()"
DEAF = """
import os, signal, subprocess, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
print(child.pid, flush=True)
while True: signal.pause()
"""


@pytest.fixture
def said():
    return []


@pytest.fixture(autouse=True)
def from_the_first_second_on(monkeypatch):
    monkeypatch.setattr(work, "LEAST_SECONDS", 0.0)


class Over(Call):
    """Its time is over as soon as an item has printed something."""

    def _wait(self, process, item, began, seconds, log, place):
        while log.stat().st_size == place and process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.02)
        return process.poll()


def call(folder, said, *, seconds=100.0, grace=20.0, kind=Call):
    return kind(folder, time.monotonic() + seconds + grace, grace=grace, say=said.append)


def item(name, code, minutes=1.0, **options):
    return Item(name, name, ("-c", code), minutes, **options)


def test_one_that_crashes_is_recorded_with_its_last_line_and_the_list_goes_on(tmp_path, said):
    measured = work.measured_file(tmp_path, "second")
    writes = f"import pathlib; pathlib.Path(r'{measured}').write_text('{{\"rate\": 3}}'); print('three')"
    crashes = "print('error: data.source: no such file'); print('bye'); raise SystemExit(2)"
    later = item("later", "print('never')", after="first")
    todo = [item("first", crashes), item("second", writes), later, item("third", "import os; os.abort()")]
    call(tmp_path, said).work(todo)
    first, second, third = (Record.read(tmp_path, name) for name in ("first", "second", "third"))
    assert (first.status, first.line, first.calls) == ("failed", "error: data.source: no such file", 1)
    assert (second.status, second.line, second.measured) == ("done", "three", {"rate": 3})
    assert third.status == "failed"
    assert Record.read(tmp_path, "later").line == "waits for first"
    call(tmp_path, said).work(todo)  # neither again
    assert [Record.read(tmp_path, name).calls for name in ("first", "second", "third")] == [1, 1, 1]


def test_one_whose_minutes_are_over_gets_ctrl_c_and_goes_on_in_the_next_call(tmp_path, said):
    stored = tmp_path / "stored"
    code = f"import pathlib\n{WAIT}where = pathlib.Path(r'{stored}')\nif where.exists(): print('ended'); sys.exit()\n"
    code += "where.write_text('half'); print('half', flush=True); signal.pause()"
    todo = [item("run", code, goes_on=True)]
    call(tmp_path, said, kind=Over).work(todo)
    first = Record.read(tmp_path, "run")
    assert (first.status, first.line) == ("stopped", "half")
    call(tmp_path, said).work(todo)
    second = Record.read(tmp_path, "run")
    assert (second.status, second.calls, second.line) == ("done", 2, "ended")
    assert second.seconds > first.seconds


def test_the_time_of_a_call_and_of_an_item_ends(tmp_path, said):
    for name, seconds, minutes in (("call", 0.3, 1.0), ("item", 100.0, 0.005)):
        call(tmp_path, said, seconds=seconds).work([item(name, STOPS, minutes=minutes, goes_on=True)])
        record = Record.read(tmp_path, name)
        assert record.status == "stopped"
        assert 0.25 < record.seconds < 20


def test_one_that_hears_nothing_is_killed_with_all_that_it_started(tmp_path, said):
    call(tmp_path, said, grace=0.2, kind=Over).work([item("deaf", DEAF, goes_on=True)])
    record = Record.read(tmp_path, "deaf")
    assert record.status == "stopped"
    with contextlib.suppress(ProcessLookupError):  # it is gone already
        assert select.select([os.pidfd_open(int(record.line))], [], [], 5)[0], "what it started lives on"


def test_one_that_begins_anew_waits_for_a_call_that_has_its_minutes_and_is_given_up_after_three(tmp_path, said):
    long = item("long", STOPS, minutes=5.0)
    call(tmp_path, said).work([item("quick", ""), long])
    record = Record.read(tmp_path, "long")
    assert (record.status, record.calls) == ("waits", 0)
    assert record.line.startswith("waits for the next call: it may take 5 minutes, 1.")
    for number in (1, 2, 3):  # calls that are shorter than its minutes
        call(tmp_path, said, kind=Over).work([item("quick", ""), long])
        record = Record.read(tmp_path, "long")
        assert (record.status, record.calls) == ("failed" if number == 3 else "stopped", number)
    assert record.line == "not done in 3 calls; last: working"


def test_ctrl_c_of_the_call_itself_leaves_everything_written(tmp_path, said, monkeypatch):
    class Interrupts(Call):
        def _wait(self, *arguments):
            raise KeyboardInterrupt

    interrupted = Interrupts(tmp_path, time.monotonic() + 60, grace=5.0, say=said.append)
    with pytest.raises(KeyboardInterrupt):
        interrupted.work([item("run", STOPS, goes_on=True)])
    assert json.loads(work.file_of(tmp_path, "run").read_text())["status"] == "stopped"


def test_items_ask_no_network_and_import_the_library_beside_them():
    found = work.environment()
    assert found["HF_HUB_OFFLINE"] == found["HF_DATASETS_OFFLINE"] == "1"
    assert found["WANDB_MODE"] == "disabled"
    assert found["PYTHONPATH"].split(os.pathsep)[0] == str(Path(__file__).resolve().parents[2])
