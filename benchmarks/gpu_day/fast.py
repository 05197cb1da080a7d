"""`cifar10_fast.yaml` on the published split: trained, or gone on with, and audited on the published grid.

    python -m benchmarks.gpu_day.fast train --json FILE --run FOLDER --data FOLDER [--toy]
    python -m benchmarks.gpu_day.fast evaluate --json FILE --run FOLDER --into FOLDER --data FOLDER [--toy]

Ctrl-C stores a checkpoint; the same command goes on from it. The split is `CIFAR10_train_ratio0.5.npz`, wherever it lies below
`--data`, or, where it doesn't, one drawn by the seed.
"""

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

from benchmarks.gpu_day.smoke import less, narrow
from benchmarks.gpu_day.standins import image_file
from benchmarks.json_file import write_json

ENTRY = "cifar10_fast.yaml"
SPLIT = "CIFAR10_train_ratio0.5.npz"
TOY_IMAGES, TOY_EPOCHS = 24, 8
GRID = ",".join(map(str, range(0, 300, 10)))
ALSO = ["audit.attacks.secmi.class=secmi", "audit.attacks.dime.class=dime", f"audit.timesteps=[{GRID}]"]
ALSO_IN_A_TOY = ["audit.attacks.secmi.class=secmi", "audit.attacks.dime.class=dime", "audit.attacks.dime.num_draws=2"]


def images(options: argparse.Namespace) -> list[str]:
    """Where the images are."""
    if options.toy:
        file = image_file(options.run.parent / "images", resolution=32, rows=2 * TOY_IMAGES)
        return ["data.source.class=parquet", f"data.source.files={file}"]
    return ["data.source.class=parquet", f"data.source.files={options.data}/cifar10/train-*.parquet"]


def training(options: argparse.Namespace) -> list[str]:
    """The words of a training that begins."""
    from ldm_privacy.config.compose import read_entry

    words = ["--config", ENTRY, f"name={options.run.name}", f"output_dir={options.run.parent}", *images(options)]
    words += ["loggers=[csv]", "wandb.mode=disabled", "trainer.checkpoint_every_n_minutes=2"]
    words += ["trainer.figures=false"]  # the evaluation draws them
    if options.toy:
        tree: dict[str, Any] = read_entry(ENTRY)
        words += [*less(tree, images=TOY_IMAGES), *narrow(tree), "trainer.compile=none", "trainer.precision=32-true"]
        return [*words, f"trainer.max_epochs={TOY_EPOCHS}", "denoiser.batch_size=8"]
    split = next(iter(sorted(options.data.rglob(SPLIT))), None)
    if split is None:
        print(f"{SPLIT} is not below {options.data}: the split is drawn by the seed.")
        return words
    return [*words, f"data.index_file={split}", "data.num_members=null", "data.num_heldout=null"]


def train(options: argparse.Namespace) -> int:
    """Begin, or go on; returns the exit code."""
    from ldm_privacy.recipes.cli import train
    from ldm_privacy.runs.folder import RunFolder
    from ldm_privacy.runs.series import SeriesFile

    if (options.run / "config.yaml").is_file():
        code = train([f"resume={options.run}", images(options)[1]])
    else:
        shutil.rmtree(options.run, ignore_errors=True)  # killed before there was anything in it
        code = train(training(options))
    epochs = [epoch for epoch, _ in SeriesFile(RunFolder(options.run).metrics).read("denoiser")]
    write_json(options.json, {"epoch": max(epochs, default=0)})
    print(f"{options.run.name}: epoch {max(epochs, default=0)}, {'its end' if code == 0 else f'exit code {code}'}")
    return code


def evaluate(options: argparse.Namespace) -> int:
    """The published table; returns the exit code."""
    from ldm_privacy.recipes.cli import evaluate

    checkpoint = options.run / "checkpoints" / "last.ckpt"
    words = [f"ckpt={checkpoint}", f"out={options.into}", *images(options)[1:], *(ALSO_IN_A_TOY if options.toy else ALSO)]
    code = evaluate(words)
    write_json(options.json, {"out": str(options.into)})
    return code


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("train", "evaluate"))
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--into", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--toy", action="store_true")
    options = parser.parse_args(arguments)
    from ldm_privacy.recipes.terminal import run_program

    run_program(lambda words: {"train": train, "evaluate": evaluate}[options.action](options), [])


if __name__ == "__main__":
    main(sys.argv[1:])
