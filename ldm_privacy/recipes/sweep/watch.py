"""A sweep while it runs: its workers on this machine, how its trials stand, its frontier so far."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from shutil import which
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from ldm_privacy.commands import called
from ldm_privacy.errors import UserError, reason_of
from ldm_privacy.recipes.sweep.folder import cells_of
from ldm_privacy.recipes.terminal import console, in_one_line, tell
from ldm_privacy.sweeps.cells import Sweep, lock_folder
from ldm_privacy.sweeps.journal import Journal, Trial
from ldm_privacy.sweeps.status import Standing, standings, time_left, told
from ldm_privacy.sweeps.trial import STOPPED

LOOK_SECONDS = 1.0


def run_workers(sweep: Sweep, folder: Path, module: str, workers: int) -> int:
    """Run workers until every trial has ended, in this run of the sweep or another; returns the exit code.

    Ctrl-C (or SIGTERM) asks them to store a checkpoint and to stop, a second one to stop at once. One that is killed is started
    again. When this process is killed they stop as after Ctrl-C.
    """
    journal = Journal(folder)
    group = _Workers(folder, module, workers)
    handlers = {number: signal.signal(number, group.stop) for number in (signal.SIGINT, signal.SIGTERM)}
    seen = {trial.number for trial in journal.trials() if trial.is_over}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[left]}"))
    try:
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task("", total=None, left="")
            while group.look():
                trials = journal.trials()
                stands = standings(folder, trials)
                left = time_left(stands, workers)
                description = f"{told(stands)}{', stopping' if group.is_stopping else ''}"
                ended = sum(trial.is_over for trial in trials)
                bar.update(
                    task, description=description, completed=ended, total=len(trials), left=f"about {left} left" if left else ""
                )
                _tell_news(sweep, folder, trials, seen)
                time.sleep(LOOK_SECONDS)
        trials = journal.trials()
        _tell_news(sweep, folder, trials, seen)
    finally:
        group.stop()
        for number, handler in handlers.items():
            signal.signal(number, handler)
    _print_status(standings(folder, trials))
    if any(not trial.is_over for trial in trials):
        if not group.is_stopping:
            raise UserError(f"{folder}: the workers ended before the trials; {group.log} says why.")
        tell(f"Stopped. Go on with:\n  {called('sweep', folder, '--workers', str(workers))}")
        return STOPPED
    _write_frontier(sweep, folder, trials, shown=True)
    if failed := [trial for trial in trials if trial.state == "failed"]:
        place = lock_folder(folder, failed[0].cell, failed[0].seed) / "output.log"
        tell(f"{len(failed)} failed; {place} has all that it printed. Again: {called('sweep', folder, '--retry-failed')}")
        return 1
    return 0


def show_status(sweep: Sweep, folder: Path) -> int:
    """Print how each trial stands, and the frontier so far. Raises UserError where no sweep has begun in that folder."""
    if not (folder / "journal.log").is_file():
        raise UserError(f"{folder}: no sweep has begun there; name its folder, or out=FOLDER.")
    trials = Journal(folder).trials()
    _print_status(standings(folder, trials))
    _write_frontier(sweep, folder, trials, shown=True)
    return 0


class _Workers:
    """The workers of this machine: processes in sessions of their own, so that Ctrl-C reaches them through this one."""

    def __init__(self, folder: Path, module: str, count: int):
        (folder / "logs").mkdir(parents=True, exist_ok=True)
        self.log, self.is_stopping = folder / "logs" / "workers.log", False
        self._command = [sys.executable, "-m", "ldm_privacy.sweeps.worker", str(folder), module, str(os.getpid())]
        self._shares = [share_of_machine(number, count) for number in range(count)]
        self._processes = [self._start(share) for share in self._shares]

    def look(self) -> bool:
        """Whether one of them runs; one that was killed is started again."""
        for number, process in enumerate(self._processes):
            if (process.poll() or 0) < 0 and not self.is_stopping:
                self._processes[number] = self._start(self._shares[number])
        return any(process.poll() is None for process in self._processes)

    def stop(self, number: int = signal.SIGINT, frame: Any = None) -> None:
        """Ask each to stop; a signal handler, too."""
        running = [process for process in self._processes if process.poll() is None]
        if running and not self.is_stopping:
            tell("Stopping: each trial finishes its step or audit and stores a checkpoint (Ctrl-C again stops at once).")
        self.is_stopping = self.is_stopping or bool(running)
        for process in running:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)

    def _start(self, share: dict[str, str]) -> "subprocess.Popen[bytes]":
        with self.log.open("ab") as log:
            environment = {**os.environ, **share}
            return subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
            )


def share_of_machine(number: int, count: int) -> dict[str, str]:
    """Environment of one of `count` workers: its share of the cores and of the GPUs, each in turn where they are fewer."""
    share = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // count))}
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        gpus = [each for each in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if each]
    elif which("nvidia-smi"):
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True).stdout
        gpus = [str(place) for place, _ in enumerate(line for line in listed.splitlines() if line.startswith("GPU "))]
    else:
        gpus = []
    if len(gpus) > 1:
        share["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[number % len(gpus) :: max(count, 1)])
    return share


def _tell_news(sweep: Sweep, folder: Path, trials: Sequence[Trial], seen: set[int]) -> None:
    """A line for each trial that has ended since; then the frontier is written again."""
    news = [trial for trial in trials if trial.is_over and trial.number not in seen]
    for trial in news:
        seen.add(trial.number)
        what = f"failed: {trial.why}" if trial.state == "failed" else f"done: {_numbers(trial)}"
        ended = sum(each.is_over for each in trials)
        tell(f"{ended}/{len(trials)}  {trial.cell}, seed {trial.seed} {what}")
    if any(trial.state == "done" for trial in news):
        _write_frontier(sweep, folder, trials)


def _print_status(stands: Sequence[Standing]) -> None:
    table = Table("cell", "seed", "state", "AUROC", "quality", "", box=None, title=told(stands), title_justify="left")
    for each in stands:
        numbers = each.trial.numbers
        shown = [f"{numbers[name]:.3g}" if name in numbers else "" for name in ("auroc", "quality")]
        table.add_row(each.trial.cell, str(each.trial.seed), each.state, *shown, each.words)
    console.print(table, highlight=False, markup=False)


def _numbers(trial: Trial) -> str:
    lasted = f", {trial.ended - trial.began}".partition(".")[0] if trial.began and trial.ended else ""
    return ", ".join(f"{name} {value:.3g}" for name, value in trial.numbers.items()) + lasted


def _write_frontier(sweep: Sweep, folder: Path, trials: Sequence[Trial], *, shown: bool = False) -> None:
    """frontier.html and frontier.csv of the trials so far; `shown`: its table is printed too."""
    from ldm_privacy.recipes.frontier.frontier import write_frontier

    try:
        write_frontier(sweep.name, cells_of(sweep, folder, trials), folder, shown=shown)
    except UserError as error:  # too little is done yet
        tell(f"No frontier yet: {error}")
    except Exception as error:  # trainings of hours don't end for a picture of them
        tell(f"The frontier can't be written: {in_one_line(error) or reason_of(error)}")
