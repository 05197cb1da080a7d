"""Every entry file, trained, audited and reported on a few images: does it run on this machine, in bfloat16 and compiled?

    python -m benchmarks.gpu_day.smoke --json FILE --into FOLDER [--data FOLDER] [--entries a,b] [--jobs 1] [--toy]

The settings are those of the line "A small try on any machine" in the entry file's head, then less of everything. The data are
those of `--data`, or stand-ins, as are pretrained networks that aren't there. What bfloat16 or compiled steps refuse is tried
as it is. Each entry is a process of its own and leaves FOLDER/<entry>.json; entries that have one are passed over.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from benchmarks.gpu_day.standins import at, image_file
from benchmarks.gpu_day.work import last_line
from benchmarks.json_file import write_json

SMALL_TRY = "A small try on any machine:"
LONGEST = 300.0
"""Seconds of one entry."""
FAST = ["trainer.precision=bf16-mixed", "trainer.compile=default"]
FAST_ON_A_CPU = ["trainer.precision=bf16-mixed", "trainer.compile=none"]
"""Compiling takes a CPU minutes, whatever the size."""


def small_try(text: str) -> list[str]:
    """The overrides that an entry file's head gives for a small try; none where there is no such line."""
    _, _, rest = text.partition(SMALL_TRY)
    words: list[str] = []
    for line in rest.splitlines():
        found = [word for word in line.lstrip("# ").split() if not re.fullmatch(r"python|train\.py|--config|\S+\.yaml", word)]
        given = list(takewhile(re.compile(r"[a-z][a-z_0-9.]*=\S").match, found))
        words += given
        if len(given) < len(found) or (words and not found):
            break
    return words


def less(tree: dict[str, Any], *, images: int) -> list[str]:
    """Overrides that leave little of a config: images, epochs, pictures."""
    most = {"members": images, "heldout": images, "public": 16 if at(tree, "data", "num_public") else 0}
    counts = {side: min(most[side], at(tree, "data", f"num_{side}") or most[side]) for side in most}
    found = ["data.index_file=null", *(f"data.num_{side}={count}" for side, count in counts.items())]
    found += [
        "trainer.max_epochs=2",
        "audit.every_n_epochs=2",
        "audit.num_bootstrap=50",
        "loggers=[csv]",
        "wandb.mode=disabled",
    ]
    if at(tree, "autoencoder", "network", "class") == "kl":
        found.append("autoencoder.max_epochs=1")
    if at(tree, "audit", "stop", "at"):  # whatever is found of so few images, it isn't to end there
        found += ["audit.stop.at=null", *(f"gate.{limit}=null" for limit in at(tree, "gate") or {})]
    if at(tree, "geometry", "distortion_rank"):
        found.append("geometry.distortion_max_samples=12")
    for label, watcher in (at(tree, "watch") or {}).items():
        numbers = {
            "quality": {"num_images": 20, "num_steps": 2},
            "samples": {"num_images": 4, "num_steps": 2},
            "generations": {"num_steps": 2},
            "trajectories": {"num_captions": 4, "num_steps": 2},
        }.get(at(watcher or {}, "class"), {})
        found += [f"watch.{label}.{name}={value}" for name, value in numbers.items()]
    return found


def narrow(tree: dict[str, Any]) -> list[str]:
    """Overrides that make the networks of a config those of a toy."""
    found = ["trainer.accelerator=cpu", "trainer.figures=false"]
    if at(tree, "audit", "timesteps"):
        found.append("audit.timesteps=[50,100]")
    for part in ("autoencoder", "denoiser"):
        if isinstance(channels := at(tree, part, "network", "block_out_channels"), list):
            found.append(f"{part}.network.block_out_channels=[{','.join('8' for _ in channels)}]")
            found.append(f"{part}.network.norm_num_groups=4")
        if at(tree, part, "network", "head_channels"):
            found.append(f"{part}.network.head_channels=8")
    return found


def given_networks(tree: dict[str, Any], made: Path) -> list[str]:
    """A tiny pipeline of random weights in the place of a base, or of an autoencoder, that isn't there."""
    base, path = at(tree, "base"), at(tree, "autoencoder", "network", "path")
    is_gone = [each is not None and not Path(each).exists() for each in (base, path)]
    if any(is_gone) and not (made / "base").exists():
        from tests.targets.pipelines import stable_diffusion

        stable_diffusion(made / "base.tmp").rename(made / "base")
    of_base = [f"base={(made / 'base').absolute()}", "data.resolution=16"] if is_gone[0] else []
    return of_base + ([f"autoencoder.network.path={(made / 'base' / 'vae').absolute()}"] if is_gone[1] else [])


def given_data(entry: Path, tree: dict[str, Any], data: Path | None, made: Path, rows: int) -> list[str]:
    """Where the images are: in scikit-learn, in `data`, or else a stand-in."""
    if at(tree, "data", "source", "class") == "digits":
        return []
    groups = [name.removeprefix("data/") for name in at(tree, "defaults") or [] if name.startswith("data/")]
    if data is not None and (files := [file for name in groups for file in sorted((data / name).glob("*.parquet"))]):
        return ["data.source.class=parquet", f"data.source.files=[{','.join(str(file.absolute()) for file in files)}]"]
    resolution, column = at(tree, "data", "resolution"), at(tree, "data", "group_column")
    file = image_file(made, resolution=resolution, rows=rows, group_column=column)
    return ["data.source.class=parquet", f"data.source.files={file.absolute()}"]


def ways(entry: Path, options: argparse.Namespace) -> Iterator[tuple[str, list[str]]]:
    """What is tried, in turn: in words, and the words of the command."""
    from ldm_privacy.config.compose import read_entry, read_yaml

    head = small_try(entry.read_text())
    tree = read_entry(str(entry), [word for word in head if not word.startswith("data.source")])
    images = 24 if options.toy else 64
    tree["defaults"] = read_yaml(entry).get("defaults", [])
    data = given_data(entry, tree, options.data, options.into / "images", 3 * images)
    if data:
        head = [word for word in head if not word.startswith("data.source")]
    common = [*head, *less(tree, images=images), *(narrow(tree) if options.toy else []), *data]
    common += [
        *given_networks(tree, options.into / "bases" / entry.stem),
        f"output_dir={options.into / 'runs'}",
        f"name={entry.stem}",
    ]
    fast = FAST_ON_A_CPU if options.toy else FAST
    yield " ".join(word.partition(".")[2] for word in fast), ["--config", str(entry), *common, *fast]
    yield "as it is", ["--config", str(entry), *common, *(["trainer.compile=none"] if options.toy else [])]


def one(entry: Path, options: argparse.Namespace) -> int:
    """Try an entry file and write what came of it; returns the exit code."""
    began, found = time.perf_counter(), {}
    from ldm_privacy.recipes.cli import train
    from ldm_privacy.recipes.terminal import in_one_line, quiet_libraries

    quiet_libraries()
    for way, words in ways(entry, options):
        shutil.rmtree(options.into / "runs" / entry.stem, ignore_errors=True)
        print("train", *words, flush=True)
        try:
            code = train(words)
            found[way] = "ok" if code == 0 else f"exit code {code}"
        except Exception as error:
            import traceback

            traceback.print_exc()
            found[way] = in_one_line(error) or f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
        if found[way] == "exit code 130":  # stopped: it is tried again
            return 130
        if found[way] == "ok":
            break
    shutil.rmtree(options.into / "runs" / entry.stem, ignore_errors=True)
    write_json(options.into / f"{entry.stem}.json", {"ways": found, "seconds": round(time.perf_counter() - began, 1)})
    return 0


def all_of(entries: Sequence[Path], options: argparse.Namespace) -> None:
    """Several at a time; `--json` has those that are done, whenever one is."""
    waiting = [entry for entry in entries if not (options.into / f"{entry.stem}.json").exists()]
    running: dict[Path, tuple[subprocess.Popen, float]] = {}
    same = [f"--json={options.json}", f"--into={options.into}", *(["--toy"] if options.toy else [])]
    same += [] if options.data is None else [f"--data={options.data}"]
    options.into.mkdir(parents=True, exist_ok=True)
    share = str(max(1, (os.cpu_count() or 1) // options.jobs))
    environment = {"OMP_NUM_THREADS": share, "TORCHINDUCTOR_COMPILE_THREADS": share, **os.environ}
    while True:
        for entry, (process, began) in list(running.items()):
            if process.poll() is None and time.monotonic() - began < LONGEST:
                continue
            if process.poll() is None:
                process.kill()
                process.wait()
            del running[entry]
            result, log = options.into / f"{entry.stem}.json", options.into / f"{entry.stem}.log"
            if not result.exists():
                ended = f"longer than {LONGEST:.0f} s" if process.returncode == -9 else f"exit code {process.returncode}"
                seconds = round(time.monotonic() - began, 1)
                write_json(result, {"ways": {"process": f"{ended}; last line: {last_line(log)}"}, "seconds": seconds})
            tell(entries, options)
        while waiting and len(running) < options.jobs:
            entry = waiting.pop(0)
            print(f"trying {entry.stem}", flush=True)
            with (options.into / f"{entry.stem}.log").open("wb") as log:
                words = [sys.executable, "-m", "benchmarks.gpu_day.smoke", *same, f"--one={entry}"]
                running[entry] = (
                    subprocess.Popen(words, env=environment, stdout=log, stderr=subprocess.STDOUT),
                    time.monotonic(),
                )
        if not running:
            break
        time.sleep(0.2)
    tell(entries, options)


def tell(entries: Sequence[Path], options: argparse.Namespace) -> None:
    """What is known so far."""
    files = {entry.stem: options.into / f"{entry.stem}.json" for entry in entries}
    found = {name: json.loads(file.read_text()) for name, file in files.items() if file.exists()}
    run = [name for name, each in found.items() if "ok" in each["ways"].values()]
    write_json(options.json, {"at_a_time": options.jobs, "num_entries": len(entries), "entries": found})
    failed = sorted(found.keys() - set(run))
    print(f"{len(run)} of {len(entries)} entry files run" + (f"; not: {', '.join(failed)}" if failed else ""), flush=True)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--into", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--entries", default="", help="names of entry files, with commas")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--toy", action="store_true")
    parser.add_argument("--one", type=Path)
    options = parser.parse_args(arguments)
    if options.one is not None:
        return one(options.one, options)
    from ldm_privacy.config.compose import FOR_TARGETS, entry_files

    named = [name for name in options.entries.split(",") if name]
    entries = [each for each in entry_files() if each.name != FOR_TARGETS and (not named or each.stem in named)]
    all_of(entries, options)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
