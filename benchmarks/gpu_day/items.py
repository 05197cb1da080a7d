"""The list of the day with a GPU, the most valuable first."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gpu_day.work import Item, measured_file

INFINITE = 1e6
"""Minutes of an item that takes all that are left."""
TOY_MINUTES = 5.0
"""The most of every other item of a toy."""
FULL, TOY = "full", "toy"
TRAIN = {FULL: ("--rounds=3",), TOY: ("--batch-size=8", "--published-batch-size=8", "--steps=2", "--rounds=1")}
INFLUENCE = {
    FULL: ("--device=cuda", "--network=paper", "--num-samples=128", "--probes", "1", "4", "16", "--rounds=3"),
    TOY: ("--num-samples=2", "--probes", "1", "4", "--rounds=1", "--train-steps=1"),
}
ATTACKS = {
    FULL: ("--device=cuda", "--network=paper", "--num-latents=1000", "--num-timesteps=10", "--rounds=3"),
    TOY: ("--num-latents=8", "--num-timesteps=2", "--rounds=1"),
}


@dataclass(frozen=True)
class Day:
    """What is asked for.

    Args:
        out: Results, logs, runs.
        data: Folder of data sets: cifar10/train-*.parquet, emoji/*.parquet, ... by the names in configs/data, and published
            splits (`CIFAR10_train_ratio0.5.npz`); None: none is there.
        is_toy: Everything at the size of a toy, on a CPU.
        entries: Entry files that are tried, by name; none: all that there are.
    """

    out: Path
    data: Path | None
    is_toy: bool = False
    entries: Sequence[str] = ()

    @property
    def size(self) -> str:
        """Key of the tables of options."""
        return TOY if self.is_toy else FULL

    @property
    def options(self) -> tuple[str, ...]:
        """Of every item that takes images."""
        data = () if self.data is None else (f"--data={self.data.absolute()}",)
        return *data, *(["--toy"] if self.is_toy else [])


def items(day: Day) -> list[Item]:
    """All of them; what can't be done without a file says which."""
    out = day.out.absolute()

    def measuring(name: str, what: str, module: str, *words: str, minutes: float, **options: object) -> Item:
        words = ("-m", module, f"--json={measured_file(out, name)}", *words)
        minutes = min(minutes, TOY_MINUTES) if day.is_toy and minutes < INFINITE else minutes
        return Item(name, what, words, minutes, **options)  # type: ignore[arg-type]

    cifar10 = day.data and sorted((day.data / "cifar10").glob("train-*.parquet"))
    images = [f"--images={day.data.absolute()}/cifar10/train-*.parquet"] if day.data and cifar10 and not day.is_toy else []
    missing = "" if cifar10 or day.is_toy else "waits for CIFAR-10: --data FOLDER with cifar10/train-*.parquet in it"
    run = f"--run={out / 'runs' / 'cifar10_fast'}"
    tried = [f"--entries={','.join(day.entries)}"] if day.entries else []
    jobs = f"--jobs={1 if day.is_toy else max(1, (os.cpu_count() or 1) // 2)}"  # compiling is the CPU's work
    return [
        measuring("machine", "what the machine is and reaches", "benchmarks.gpu_day.machine", minutes=2),
        measuring("training", "the denoiser's steps beside the plain loops", "benchmarks.train", *TRAIN[day.size], minutes=5),
        measuring(
            "influence",
            "influence beside the plain loops",
            "benchmarks.geometry",
            *("--part=masks", *INFLUENCE[day.size], *images),
            minutes=4,
        ),
        measuring("attacks", "attacks beside the plain loops", "benchmarks.attacks", *ATTACKS[day.size], minutes=4),
        measuring(
            "smoke",
            "every entry file on a few images, in bfloat16 and compiled",
            "benchmarks.gpu_day.smoke",
            *(f"--into={out / 'smoke'}", jobs, *tried, *day.options),
            minutes=12,
            goes_on=True,
        ),
        measuring(
            "cifar10_fast",
            "cifar10_fast.yaml, trained and audited as far as the minutes go",
            "benchmarks.gpu_day.fast",
            *("train", run, *day.options),
            minutes=INFINITE,
            goes_on=True,
            waits_for=missing,
        ),
        measuring(
            "published",
            "the published table of that run",
            "benchmarks.gpu_day.fast",
            *("evaluate", run, f"--into={out / 'published'}", *day.options),
            minutes=8,
            after="cifar10_fast",
            waits_for=missing,
        ),
    ]
