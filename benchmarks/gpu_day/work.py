"""Works down a list, each item in a process of its own, as far as the minutes go; what each has left lies in a file of its own.

An item that crashes ends alone: its last line is kept and the list goes on. One that is out of minutes gets Ctrl-C, `grace`
seconds to store what it has, and is killed then, with every process that it started; the next call goes on with it.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.json_file import write_json

ROOT = Path(__file__).resolve().parents[2]
LEAST_SECONDS = 5.0
"""With less than this nothing is begun."""
MOST_CALLS = 3
"""An item that can't go on where it stopped is given up when so many calls didn't see its end."""
TELL_EVERY = 30.0
Status = Literal["waits", "stopped", "done", "failed"]


@dataclass(frozen=True)
class Item:
    """One entry of the list.

    Attributes:
        name: Of its files.
        what: In words.
        words: After `python`; it writes what it measured to the JSON file that they name with `--json`.
        minutes: The most that it takes of one call.
        goes_on: Begun again, it goes on where it was stopped, so it is worth any number of minutes; otherwise it begins anew.
        after: The item that must be done before.
        waits_for: Why it can't be begun in this call; "" where it can.
    """

    name: str
    what: str
    words: tuple[str, ...]
    minutes: float
    _: KW_ONLY
    goes_on: bool = False
    after: str | None = None
    waits_for: str = ""


@dataclass
class Record:
    """What is known of an item, as its file holds it.

    Attributes:
        status: waits = not begun; stopped = its minutes ran out.
        calls, seconds: In how many calls it ran, and how long altogether.
        line: The last that it printed, or why it waits.
        measured: What it measured; of a stopped or failed one as far as it got.
    """

    status: Status = "waits"
    calls: int = 0
    seconds: float = 0.0
    line: str = ""
    measured: dict[str, Any] | None = None

    @classmethod
    def read(cls, folder: Path, name: str) -> "Record":
        """From an item's file; as never begun where there is none."""
        file = file_of(folder, name)
        return cls(**json.loads(file.read_text())) if file.exists() else cls()

    def write(self, folder: Path, name: str) -> None:
        """Whole or not at all."""
        write_json(file_of(folder, name), asdict(self))


def file_of(folder: Path, name: str) -> Path:
    """The file of an item."""
    return folder / "items" / f"{name}.json"


def measured_file(folder: Path, name: str) -> Path:
    """Where an item writes what it measures."""
    return folder / "items" / f"{name}.measured.json"


@dataclass(frozen=True)
class Call:
    """One call: works until a moment.

    Args:
        folder: Results, logs.
        until: On the clock of `time.monotonic`; everything is written by then.
        grace: Seconds between Ctrl-C and the kill, part of the call's time.
        say: Prints a line.
        written: Called whenever a result was written.
    """

    folder: Path
    until: float
    _: KW_ONLY
    grace: float
    say: Callable[[str], None]
    written: Callable[[], None] = lambda: None

    @property
    def left(self) -> float:
        """Seconds in which an item may run."""
        return self.until - time.monotonic() - self.grace

    def work(self, items: Sequence[Item]) -> None:
        """Down the list; what is done or has failed is passed over."""
        began = False
        for item in items:
            record = Record.read(self.folder, item.name)
            if record.status in ("done", "failed"):
                continue
            if reason := self._waits(item, began):
                record.line = record.line if record.calls else reason
                record.write(self.folder, item.name)
                self.say(f"{item.name}: {reason}")
                continue
            began = True
            self._run(item, record)
            self.written()

    def _waits(self, item: Item, began: bool) -> str:
        """Why an item isn't begun now; "" where it is."""
        if item.waits_for:
            return item.waits_for
        if item.after is not None and Record.read(self.folder, item.after).status != "done":
            return f"waits for {item.after}"
        if self.left < LEAST_SECONDS:
            return "waits for the next call: no time is left in this one"
        if began and not item.goes_on and self.left < 60 * item.minutes:
            return f"waits for the next call: it may take {item.minutes:g} minutes, {max(0, self.left) / 60:.1f} are left"
        return ""

    def _run(self, item: Item, record: Record) -> None:
        seconds, log = min(self.left, 60 * item.minutes), self.folder / "items" / f"{item.name}.log"
        self.say(f"{item.name}: {item.what}, at most {seconds / 60:.1f} minutes")
        began, record.status, record.calls = time.monotonic(), "stopped", record.calls + 1
        record.write(self.folder, item.name)  # a call that is killed itself counts
        spent, code, was_stopped = record.seconds, None, True
        with log.open("ab") as output:
            place = output.tell()
            words = [sys.executable, *item.words]
            options: dict[str, Any] = {"cwd": ROOT, "stdin": subprocess.DEVNULL, "stdout": output, "stderr": subprocess.STDOUT}
            process = subprocess.Popen(words, env=environment(), start_new_session=True, **options)
        try:
            code = self._wait(process, item, began, seconds, log, place)
            was_stopped = code is None
        finally:  # on Ctrl-C as well
            line = last_line(log, place)  # how far it was, before it is told to stop
            if code is None:
                code = stop(process, self.grace)
            end_group(process)
            record.seconds, record.line = spent + time.monotonic() - began, line
            record.measured = read_measured(measured_file(self.folder, item.name)) or record.measured
            record.status = status_of(code, was_stopped)
            if record.status == "stopped" and not item.goes_on and record.calls >= MOST_CALLS:
                record.status, record.line = "failed", f"not done in {MOST_CALLS} calls; last: {record.line}"
            record.write(self.folder, item.name)
            self.say(f"{item.name}: {record.status} after {record.seconds / 60:.1f} minutes: {record.line}")

    def _wait(self, process: subprocess.Popen, item: Item, began: float, seconds: float, log: Path, place: int) -> int | None:
        """The exit code, or None where the time is up."""
        while (left := began + seconds - time.monotonic()) > 0:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(min(left, TELL_EVERY))
            self.say(f"  {item.name}, {(time.monotonic() - began) / 60:.1f} minutes: {last_line(log, place)}")
        return None


def environment() -> dict[str, str]:
    """Of every item: nothing is asked of a network; the library is the one beside this file."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "WANDB_MODE": "disabled"}
    return {**os.environ, **offline, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1", "COLUMNS": "140"}


def stop(process: subprocess.Popen, grace: float) -> int | None:
    """Ctrl-C for the process and all that it started, then patience; its exit code, None where it must be killed."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        return process.wait(grace)
    return None


def end_group(process: subprocess.Popen) -> None:
    """Nothing that the process started lives on."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def status_of(code: int | None, was_stopped: bool) -> Status:
    """Of an item that ended; one that was stopped, by us or by hand, goes on another time."""
    if code == 0:
        return "done"
    return "stopped" if was_stopped or code in (None, 130, -signal.SIGINT) else "failed"


def last_line(log: Path, place: int = 0) -> str:
    """The last line of a log from `place` on, or the last that says what went wrong."""
    with log.open("rb") as file:
        file.seek(max(place, log.stat().st_size - 65536))
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", file.read().decode(errors="replace"))
    lines = [line for part in re.split(r"[\r\n]+", text) if re.search(r"[^\W_]", line := part.strip(" │┃|"))]  # no rulers
    wrong = [line for line in lines if line.startswith("error:")]
    return (wrong or lines or ["it printed nothing"])[-1][:300]


def read_measured(file: Path) -> dict[str, Any] | None:
    """What an item wrote, which moves into its record."""
    if not file.exists():
        return None
    measured = json.loads(file.read_text())
    file.unlink()
    return measured
