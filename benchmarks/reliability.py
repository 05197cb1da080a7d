"""What a run survives: kills by SIGKILL at random moments. Its table is in docs/results/reliability.md.

    python -m benchmarks.reliability kills [--kills 20] [--seed 0] [--jobs 2] [--keep FOLDER] [key=value ...]
    python -m benchmarks.reliability mistakes [--jobs 2] [--only WORD]      # see `benchmarks.mistakes`

Trains a short digits run (DIGITS, then `key=value`), kills others of it with all their processes, resumes each, and compares it
with the one that was not broken: metrics.csv, scores and evaluation to the byte, networks, averages and moments to the bit, and
the names of all files. The moments go through PHASES in turn; which of a phase's occurrences, and how much of it has passed, is
drawn from the seed. Every fourth run is killed once more while it is resumed. The table says what was running: a stage has its
audits and checkpoints inside. Exit code 1 where a run ends otherwise.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.same_runs import difference

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "WANDB_MODE": "offline",
    "HF_HUB_OFFLINE": "1",
    "PYTHONPATH": str(ROOT),
    "PYTHONDONTWRITEBYTECODE": "1",
}
DIGITS = [
    *("--config", "digits.yaml", "output_dir=runs", "autoencoder.max_epochs=3", "denoiser.batch_size=8"),
    *("denoiser.network.block_out_channels=[16,32]", "trainer.max_epochs=12", "trainer.checkpoint_every_n_minutes=0.02"),
    *("audit.every_n_epochs=3", "audit.num_bootstrap=100", "geometry.distortion_max_samples=64"),
    *("watch.generations.every.epochs=6", "watch.generations.num_images=1000", "watch.generations.num_steps=10"),
]
PHASES = {
    "stage 1": "ldm_privacy.recipes.train.train.train_codec",
    "stage 2": "ldm_privacy.recipes.train.train.train_denoiser",
    "audit": "ldm_privacy.watch.memorization.Memorization.look",
    "checkpoint write": "ldm_privacy.callbacks.checkpoints.save_checkpoint",
    "evaluation": "ldm_privacy.recipes.train.train.publish",
}
"""What is hit -> the function that is running then."""


class Table:
    """A markdown table that is printed row by row."""

    def __init__(self, *columns: str):
        self.rows: list[list[str]] = []
        print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)

    def add(self, *row: str) -> None:
        self.rows.append(list(row))
        print(f"| {' | '.join(row)} |", flush=True)


class Moment(NamedTuple):
    """When to kill: in which occurrence of a phase, from 1, and how many seconds after its beginning."""

    phase: str
    occurrence: int
    delay: float


def traced(marks: Path, arguments: list[str]) -> None:
    """`train.py`, writing to `marks` when a phase begins and ends."""
    from pkgutil import resolve_name

    from ldm_privacy.recipes.cli import train
    from ldm_privacy.recipes.terminal import run_program

    start = time.monotonic()

    def marked(function: Callable[..., Any], phase: str) -> Callable[..., Any]:
        def wrapper(*arguments: Any, **options: Any) -> Any:
            for word in ("begin", "end"):
                with marks.open("a") as file:
                    file.write(f"{word},{phase},{time.monotonic() - start}\n")
                if word == "begin":
                    result = function(*arguments, **options)
            return result

        return wrapper

    for phase, function in PHASES.items():
        owner, _, name = function.rpartition(".")
        setattr(resolve_name(owner), name, marked(resolve_name(function), phase))
    run_program(train, arguments)


def phases_in(marks: Path) -> Iterator[tuple[str, str, float]]:
    """(begin or end, phase, seconds) in order."""
    for line in marks.read_text().splitlines() if marks.exists() else ():
        word, phase, seconds = line.split(",")
        yield word, phase, float(seconds)


def lengths(marks: Path) -> dict[str, list[float]]:
    """Seconds of every occurrence of every phase."""
    began: dict[str, float] = {}
    found: dict[str, list[float]] = {phase: [] for phase in PHASES}
    for word, phase, seconds in phases_in(marks):
        if word == "begin":
            began[phase] = seconds
        else:
            found[phase].append(seconds - began[phase])
    return found


class Outcome(NamedTuple):
    """How a run ended: its exit code (-9: killed), what was running then, and after how many seconds."""

    code: int
    hit: str
    seconds: float


def run(folder: Path, arguments: list[str], moment: Moment | None = None) -> Outcome:
    """`train.py` in that folder, its output in output.txt; killed with all its processes at that moment."""
    marks, start = folder / "marks.csv", time.monotonic()
    marks.unlink(missing_ok=True)
    command = [sys.executable, "-m", "benchmarks.reliability", "traced", str(marks), *arguments]
    with (folder / "output.txt").open("w") as output:
        process = subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, stdout=output, stderr=output, start_new_session=True)
    while moment and process.poll() is None:
        if sum(mark[:2] == ("begin", moment.phase) for mark in phases_in(marks)) >= moment.occurrence:
            time.sleep(moment.delay)
            for each in reversed(family(process.pid)):  # W&B's process is in a group of its own
                with suppress(ProcessLookupError):
                    os.killpg(each, signal.SIGKILL)
            break
        time.sleep(0.002)
    code, now = process.wait(), []
    for word, phase, _ in phases_in(marks):
        now = [phase, *now] if word == "begin" else now[1:]
    left = [path.name for path in folder.glob("runs/*/**/*tmp*") if "wandb" not in path.parts]  # half written
    hit = (" in ".join(now) or "between phases") + (f" ({', '.join(left)})" if left else "")
    return Outcome(code, hit, time.monotonic() - start)


def family(pid: int) -> list[int]:
    """A process and all that it has started."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    found = [int(each) for each in children.read_text().split()] if children.exists() else []
    return [pid, *(each for child in found for each in family(child))]


def one_kill(folder: Path, arguments: list[str], moments: list[Moment], whole: Path) -> list[str]:
    """Kill as often as there are moments, resume to the end; a row of the table."""
    folder.mkdir()
    hits, command, seconds = [], arguments, []
    for moment in moments:
        outcome = run(folder, command, moment)
        while outcome.code == 0 and command is arguments:  # faster than the one that was not broken: anew, and earlier
            shutil.rmtree(folder / "runs")
            moment = moment._replace(delay=moment.delay / 2)
            outcome = run(folder, command, moment)
        hits.append(outcome.hit if outcome.code == -signal.SIGKILL else f"{moment.phase} not reached: exit code {outcome.code}")
        seconds.append(f"{outcome.seconds:.1f} s")
        command = ["resume=runs/digits"]
    code = run(folder, command).code
    said = (folder / "output.txt").read_text().splitlines()
    line = next((line for line in said if line.startswith("Going on")), said[0] if said else "")
    found = f"exit code {code}: {said[-1]}" if code else difference(folder / "runs" / "digits", whole)
    return [
        "; then ".join(seconds),
        "; then ".join(hits),
        line,
        found or ("equal" if "not reached" not in hits[0] else "no kill"),
    ]


def draw(kills: int, seed: int, known: dict[str, list[float]]) -> list[list[Moment]]:
    """The moments of every run, from what its phases took in the run that was not broken."""
    generator, names, drawn = random.Random(seed), list(PHASES), []
    for number in range(kills):
        first = number % len(names)
        moments = []
        for phase in [names[first]] + ([names[generator.randrange(first, len(names))]] if number % 4 == 3 else []):
            # Checkpoints by time come when they come, and a resumed run has fewer: not the last ones.
            occurrence = 1 if moments else generator.randint(1, max(1, 2 * len(known[phase]) // 3))
            moments.append(Moment(phase, occurrence, generator.random() * known[phase][occurrence - 1]))
        drawn.append(moments)
    return drawn


def kills(options: argparse.Namespace) -> bool:
    """The table of kills; whether every run ended equal."""
    arguments = [*DIGITS, *options.overrides]
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        (folder / "whole").mkdir(parents=True)
        outcome = run(folder / "whole", arguments)
        if outcome.code:
            raise SystemExit((folder / "whole" / "output.txt").read_text())
        known, whole = lengths(folder / "whole" / "marks.csv"), folder / "whole" / "runs" / "digits"
        print(f"The run that was not broken took {outcome.seconds:.0f} s on one thread:")
        print(", ".join(f"{len(each)} x {phase} ({sum(each):.1f} s)" for phase, each in known.items()) + ".\n")
        drawn = draw(options.kills, options.seed, known)
        table = Table("number", "killed after", "in", "resume said", "at the end")
        with ThreadPoolExecutor(options.jobs) as pool:
            folders = [folder / f"{number:02}" for number in range(1, options.kills + 1)]
            results = pool.map(one_kill, folders, [arguments] * len(drawn), drawn, [whole] * len(drawn))
            for number, row in enumerate(results, start=1):
                table.add(str(number), *row)
    equal = sum(row[-1] == "equal" for row in table.rows)
    print(f"\n{equal} of {options.kills} end equal to the run that was not broken.")
    return equal == options.kills


def main() -> None:
    if sys.argv[1:2] == ["traced"]:  # what `run` starts
        return traced(Path(sys.argv[2]), sys.argv[3:])
    from benchmarks.mistakes import mistakes

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    of_kills, of_mistakes = commands.add_parser("kills"), commands.add_parser("mistakes")
    for each in (of_kills, of_mistakes):
        each.add_argument("--jobs", type=int, default=1, help="programs side by side, a thread each")
    of_kills.add_argument("--kills", type=int, default=20)
    of_kills.add_argument("--seed", type=int, default=0, help="of the moments")
    of_kills.add_argument("--keep", type=Path, help="a new folder for the runs, in place of a temporary one")
    of_kills.add_argument("overrides", nargs="*", metavar="key=value")
    of_mistakes.add_argument("--only", default="", help="those whose name has this word")
    options = parser.parse_args()
    good = kills(options) if options.command == "kills" else mistakes(jobs=options.jobs, only=options.only)
    sys.exit(not good)


if __name__ == "__main__":
    main()
