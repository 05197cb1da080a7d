"""Kills processes of a sweep at random; a program, so that what it forks is small.

python chaos.py FOLDER KILLS SEED

A trial adds a line to `ran`, and fails where another process runs it too. Prints how many were killed.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

from filelock import FileLock

from ldm_privacy.sweeps.journal import Journal
from ldm_privacy.sweeps.trial import run_trial, stop_with_parent
from ldm_privacy.sweeps.worker import Worker

CELLS, SEEDS, WORKERS, LOOK = {"a": "1", "b": "2", "c": "3", "d": "4"}, (0, 1, 2), 3, 0.002


class Forked:
    """A forked process; what a worker needs of it."""

    def __init__(self, main):
        self.pid, self.code = os.fork(), None
        if self.pid == 0:
            code = 1
            try:
                code = main()
            finally:
                os._exit(code)

    def poll(self):
        if self.code is None and os.waitpid(self.pid, os.WNOHANG)[0]:
            self.code = -signal.SIGKILL
        return self.code

    def send_signal(self, number):
        os.kill(self.pid, number)


def main(folder, kills, seed):
    journal = Journal(folder)
    journal.enqueue("chaos", CELLS, SEEDS)
    draw = random.Random(seed)
    (folder / "killed").touch()

    def note(name, text):
        with (folder / name).open("a") as file:
            file.write(f"{text}\n")

    def start(trial):
        parent = os.getpid()

        def run():
            stop_with_parent(parent)
            return run_trial(folder, trial.cell, trial.seed, train)

        process = Forked(run)
        note("pids", process.pid)
        return process

    def train(trial):
        with FileLock(folder / f"{trial.cell}-{trial.seed}.alone", timeout=0):  # raises where two run it
            note("ran", f"{trial.cell} {trial.seed}")
            until = 2 * trial.number  # so that the last can't end before most were killed
            while (folder / "killed").stat().st_size < until:
                time.sleep(LOOK)
        return {"auroc": trial.seed / 10}

    def work():
        worker = Worker(folder, start, wait=LOOK)
        worker._count_death = lambda *arguments: None  # random kills are no want of memory
        return worker()

    workers, killed = [Forked(work) for _ in range(WORKERS)], 0
    while any(worker.poll() is None for worker in workers) or killed < 1:
        time.sleep(draw.uniform(0.0, 0.03))
        alive = [worker.pid for worker in workers if worker.poll() is None]
        alive += trials_alive(folder)
        if killed < kills and alive:
            for pid in draw.sample(alive, draw.choice([1, 1, min(2, len(alive))])):
                try:
                    os.kill(pid, signal.SIGKILL)
                    killed += 1
                    (folder / "killed").write_text("x" * killed)
                except ProcessLookupError:
                    pass
        workers = [Forked(work) if worker.poll() is not None and not_over(journal) else worker for worker in workers]
    print(killed)


def trials_alive(folder):
    """Processes of trials; a number may be another program's by now."""
    noted = (folder / "pids").read_text().split() if (folder / "pids").exists() else []
    lines = {pid: Path(f"/proc/{pid}/cmdline") for pid in noted[-WORKERS:]}
    return [int(pid) for pid, path in lines.items() if path.exists() and str(folder).encode() in path.read_bytes()]


def not_over(journal):
    return any(not trial.is_over for trial in journal.trials())


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
