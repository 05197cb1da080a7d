"""One trial, in a process of its own: the process holds the trial's lock while it lives, and tells the journal how it ended."""

import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

from ldm_privacy.errors import UserError, reason_of
from ldm_privacy.runs.lock import writing
from ldm_privacy.sweeps.cells import lock_folder
from ldm_privacy.sweeps.journal import Journal, Trial

DONE, FAILED, TAKEN, STOPPED = 0, 3, 75, 130
"""Exit codes of a trial's process that told the journal; TAKEN = another one has it, STOPPED = asked to stop, it can go on."""


def run_trial(folder: Path, cell: str, seed: int, train: Callable[[Trial], Mapping[str, float]]) -> int:
    """Run a trial that was taken, unless another process runs it or it is over; returns the exit code.

    Killed at any point it leaves a trial that is taken and whose lock is free: the next process that asks for it goes on with
    it. Nothing else decides, so a worker may start it at any time, and twice.

    Args:
        folder: Of the sweep.
        cell, seed: Which.
        train: Trains and evaluates, or goes on with what a killed process left; returns the numbers that it ends with. What it
            raises is printed, its last line is kept; KeyboardInterrupt says that it stopped and can go on.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(writing(lock_folder(folder, cell, seed)))
        except UserError:
            return TAKEN
        journal = Journal(folder)
        trial = next(each for each in journal.trials() if (each.cell, each.seed) == (cell, seed))
        if trial.is_over:
            return DONE
        try:
            numbers = train(trial)
        except KeyboardInterrupt:
            return STOPPED
        except Exception as error:
            line = " ".join(str(error).split()) if isinstance(error, UserError) else _last_line(error)
            journal.fail(trial, line)
            return FAILED
        journal.finish(trial, numbers)
    return DONE


def stop_with_parent(parent: int) -> None:
    """Interrupt this process, as Ctrl-C does, when the one that started it is gone."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=watch, daemon=True).start()


def _last_line(error: Exception) -> str:
    traceback.print_exc()
    return f"{type(error).__name__}: {reason_of(error)}"
