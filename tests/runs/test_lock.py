"""One process at a time writes to a folder, and its end, however it comes, lets the next one in."""

import errno
import json
import logging
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from ldm_privacy.errors import UserError
from ldm_privacy.runs.lock import holder_of, writing

HOLD = """
import os, subprocess, sys
from pathlib import Path
from ldm_privacy.runs.lock import writing
with writing(Path(sys.argv[1])):
    {first}
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(folder: Path, first: str = "pass"):
    """A process that writes to the folder until its standard input ends or it is killed."""
    command = [sys.executable, "-c", HOLD.format(first=first), str(folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def _said_of(number: int, folder: Path) -> str:
    since = json.loads((folder / ".lock.json").read_text())["since"]
    where = f"process {number} on {os.uname().nodename}"
    return f"{where} has been writing to it since {since}; wait, or stop it there (kill {number})"


def test_a_second_process_is_refused_with_the_name_of_the_first(tmp_path):
    with holder(tmp_path) as process:
        with pytest.raises(UserError) as caught, writing(tmp_path):
            pass
        said = _said_of(process.pid, tmp_path)
        assert str(caught.value) == f"{tmp_path}: {said}."
        process.communicate()  # the end of its input: it ends by itself
        with writing(tmp_path):
            assert json.loads((tmp_path / ".lock.json").read_text())["process"] == os.getpid()


# Each child lives on until its input, which is the first process's, ends.
CHILDREN = {
    "alone": "pass",
    "with_a_program": "subprocess.Popen(['cat'])",
    "with_a_fork": "os.fork() or (sys.stdin.read(), os._exit(0))",
}


def test_who_asks_is_told_who_writes_now(tmp_path):
    assert holder_of(tmp_path) is None
    with holder(tmp_path) as process:
        assert holder_of(tmp_path)["process"] == process.pid
        (tmp_path / ".lock.json").write_text("{")
        assert holder_of(tmp_path) == {}
    assert holder_of(tmp_path) is None  # what the file says is of the last one


@pytest.mark.parametrize("first", CHILDREN.values(), ids=CHILDREN)
def test_a_killed_process_keeps_nothing_even_where_its_children_live_on(tmp_path, first):
    with holder(tmp_path, first) as process:
        process.kill()
        process.wait()
        with writing(tmp_path):
            pass


def test_who_holds_a_folder_may_hold_it_again(tmp_path):
    with writing(tmp_path):
        with writing(tmp_path / ".." / tmp_path.name):
            pass
        assert refused(tmp_path)
    assert not refused(tmp_path)


def test_who_waits_comes_next_and_says_so(tmp_path):
    with holder(tmp_path) as process:

        class End(logging.Handler):
            def emit(self, record):
                said.append(record.getMessage())
                process.kill()

        said, log, first = [], logging.getLogger("ldm_privacy"), _said_of(process.pid, tmp_path)
        handler, level = End(), log.level
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        try:
            with writing(tmp_path, wait=True):
                assert refused(tmp_path)
        finally:
            log.removeHandler(handler)
            log.setLevel(level)
        assert said == [f"{tmp_path}: {first}. Waiting for it."]


@pytest.mark.parametrize("error", [OSError(errno.ENOLCK, "No locks available"), NotImplementedError("no flock here")])
def test_a_file_system_without_locks_is_said_to_be_one(tmp_path, monkeypatch, caplog, error):
    def acquire(self, **options):
        raise error

    monkeypatch.setattr("ldm_privacy.runs.lock.FileLock.acquire", acquire)
    with writing(tmp_path):
        pass
    assert f"{tmp_path} can't be locked (" in caplog.text


def test_where_the_system_has_no_locks_no_file_stands_for_one(tmp_path, monkeypatch, caplog):
    """It would stay behind a kill and lock out whoever comes next."""

    def flock(file, operation):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", flock)
    with writing(tmp_path):
        assert (tmp_path / ".lock").read_bytes() == b""
    assert f"{tmp_path} can't be locked (" in caplog.text


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(UserError, match=r"file/run: can't be written to \(Not a directory\)"),
        writing(tmp_path / "file" / "run"),
    ):
        pass


def refused(folder: Path) -> bool:
    """Whether another process is."""
    command = [sys.executable, "-c", HOLD.format(first="pass"), str(folder)]
    done = subprocess.run(command, input="", capture_output=True, text=True)
    assert done.returncode == 0 or "has been writing to it" in done.stderr, done.stderr
    return done.returncode != 0
