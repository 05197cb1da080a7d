"""A worker: takes a trial, runs it in a process of its own, takes the next. Any number of them, wherever the disk is shared.

python -m ldm_privacy.sweeps.worker FOLDER MODULE PARENT
"""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from ldm_privacy.errors import UserError
from ldm_privacy.runs.lock import holder_of, writing
from ldm_privacy.sweeps.cells import lock_folder, run_folder
from ldm_privacy.sweeps.journal import Journal, Trial
from ldm_privacy.sweeps.trial import DONE, FAILED, STOPPED, TAKEN

MOST_DEATHS = 5
"""Times in a row that a trial's process may be killed at the same checkpoint before the trial counts as failed (memory?)."""


class Process(Protocol):
    """What a worker needs of a trial's process; subprocess.Popen has it."""

    def poll(self) -> int | None: ...

    def send_signal(self, number: int, /) -> None: ...


class Worker:
    """Runs trials until each has ended, or it is asked to stop.

    It holds nothing but the process of one trial, so it may be killed at any time: that process stops, another worker goes on.

    Args:
        folder: Of the sweep.
        start: Starts the process of a trial, which calls `run_trial`.
        wait: Seconds between two looks.
        parent: Process that it stops with; None = it stops when it is told.
    """

    def __init__(self, folder: Path, start: Callable[[Trial], Process], *, wait: float = 0.5, parent: int | None = None):
        self.folder, self._start, self._wait, self._parent = folder, start, wait, parent
        self._journal = Journal(folder)
        self._running: Process | None = None
        self._deaths: Counter[tuple[str, int, float]] = Counter()
        self._is_stopping = False

    def __call__(self) -> int:
        """Returns the exit code: STOPPED where trials are left."""
        while not self._is_stopping:
            if (trial := self._journal.take() or self._left_behind()) is not None:
                self._run(trial)
            elif all(each.is_over for each in self._journal.trials()):
                return DONE
            else:  # others run the rest, and may be killed
                self._look()
        return STOPPED

    def stop(self, number: int = signal.SIGINT, frame: Any = None) -> None:
        """Ask the trial to store a checkpoint and to stop; a second time: to stop at once. A signal handler, too."""
        self._is_stopping = True
        if self._running is not None:
            with suppress(ProcessLookupError):
                self._running.send_signal(signal.SIGINT)

    def finish(self, seconds: float) -> None:
        """Wait for the trial's process, which was asked to stop, no longer than that."""
        until = time.monotonic() + seconds
        while self._running is not None and self._running.poll() is None and time.monotonic() < until:
            time.sleep(self._wait)

    def _left_behind(self) -> Trial | None:
        """One that was taken and that no process runs."""
        taken = [trial for trial in self._journal.trials() if trial.state == "taken"]
        return next((trial for trial in taken if holder_of(self._lock(trial)) is None), None)

    def _run(self, trial: Trial) -> None:
        self._running = self._start(trial)
        if self._is_stopping:  # asked in between
            self.stop()
        while (code := self._running.poll()) is None:
            self._look()
        self._running = None
        if code == TAKEN:
            self._look()
        elif code not in (DONE, FAILED, STOPPED, -signal.SIGINT):
            self._count_death(trial, code)

    def _look(self) -> None:
        time.sleep(self._wait)
        if self._parent is not None and os.getppid() != self._parent and not self._is_stopping:
            self.stop()

    def _count_death(self, trial: Trial, code: int) -> None:
        """A trial's process ended and did not say how."""
        checkpoints = run_folder(self.folder, trial.cell, trial.seed) / "checkpoints"
        newest = max((path.stat().st_mtime for path in checkpoints.glob("*.ckpt")), default=0.0)
        self._deaths[trial.cell, trial.seed, newest] += 1
        if self._deaths[trial.cell, trial.seed, newest] < MOST_DEATHS:
            return
        how, more = f"ended with code {code}", f": see {self._lock(trial) / 'output.log'}"
        if code < 0:
            how, more = f"was killed by signal {-code}", " (9: for want of memory?)"
        with suppress(UserError), writing(self._lock(trial)):  # another has it
            if not next(each for each in self._journal.trials() if each.number == trial.number).is_over:
                self._journal.fail(trial, f"{how}, {MOST_DEATHS} times{more}")

    def _lock(self, trial: Trial) -> Path:
        return lock_folder(self.folder, trial.cell, trial.seed)


def starter(folder: Path, module: str) -> Callable[[Trial], subprocess.Popen[bytes]]:
    """Starts `python -m MODULE FOLDER CELL SEED WORKER`, whose output goes to output.log beside the trial's lock.

    It is a session of its own: Ctrl-C in the terminal reaches it through its worker alone.
    """

    def start(trial: Trial) -> subprocess.Popen[bytes]:
        place = lock_folder(folder, trial.cell, trial.seed)
        place.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", module, str(folder), trial.cell, str(trial.seed), str(os.getpid())]
        with (place / "output.log").open("ab") as log:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)

    return start


def work(folder: Path, module: str, *, parent: int | None = None) -> int:
    """A worker whose trials are processes of that module; SIGINT and SIGTERM ask it to stop. Returns the exit code."""
    worker = Worker(folder, starter(folder, module), parent=parent)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, worker.stop)
    return worker()


if __name__ == "__main__":
    sys.exit(work(Path(sys.argv[1]), sys.argv[2], parent=int(sys.argv[3])))
