"""Sweeps: a file of cells x seeds, each one training and one evaluation in a process of its own."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ldm_privacy.commands import called
from ldm_privacy.config import Config, finish
from ldm_privacy.config.command_line import CommandLine, first_sentence, parse
from ldm_privacy.config.compose import CONFIG_DIR, as_yaml, read_entry
from ldm_privacy.errors import UserError
from ldm_privacy.recipes.known import check_trainable, data_of, difference, quality_of
from ldm_privacy.recipes.sweep.folder import read_file
from ldm_privacy.recipes.sweep.watch import run_workers, show_status
from ldm_privacy.recipes.terminal import console, tell
from ldm_privacy.registry import nearest_name
from ldm_privacy.runs.folder import check_writable
from ldm_privacy.runs.lock import writing
from ldm_privacy.sweeps.cells import OWN, Sweep, cell_file
from ldm_privacy.sweeps.journal import Journal, check_optuna
from ldm_privacy.sweeps.slurm import OPTIONS, STOP_SECONDS, read_options, submit

USAGE = """{program} configs/sweeps/digits_beta.yaml [--workers 2] [out=FOLDER] [key=value ...]
                                       train and evaluate every cell under every seed; again: go on after a stop (Ctrl-C, kill)
{program} FILE --status                how each trial stands, and the frontier so far
{program} FILE --retry-failed          go on, and try those again that failed
{program} FILE --workers 4 --slurm partition=gpu,minutes=240,gpus=1     the same workers as jobs of Slurm ({words})

FILE is a sweep file, or the folder of a sweep that has begun (sweeps/NAME, or out=). key=value changes every trial's config."""
WORDS = {"--workers": True, "--status": False, "--retry-failed": False, "--slurm": True}
"""Options -> whether they take a value."""
TRIAL = "ldm_privacy.recipes.sweep.trial"
"""The module that is called for each trial."""
BEGINS = "config="
"""Among a cell's overrides: the entry file that it begins with, in place of the sweep's."""


def sweep(arguments: list[str]) -> int:
    """Run a sweep, go on with one, or tell how it stands; returns the exit code: 1 where trials failed, 130 after a stop."""
    line = parse(arguments, words=("out",), options=WORDS)
    if line.help:
        return _print_help()
    workers, file = _workers(line), _find(line.config)
    read = read_file(file, line.overrides)
    folder = Path(line.words["out"]) if line.words.get("out") else Path("sweeps") / read.name
    if file.name == "sweep.yaml" and "out" not in line.words:
        folder = file.parent
    if "--status" in line.options:
        stored = folder / "sweep.yaml"
        return show_status(read_file(stored) if stored.is_file() else read, folder)
    check_optuna()
    slurm = read_options(line.options["--slurm"]) if "--slurm" in line.options else None
    check_writable(folder, "out")
    trees = _trees(file, read)
    _enqueue(folder, file, read, trees, retry="--retry-failed" in line.options)
    if slurm is None:
        return run_workers(read, folder, TRIAL, workers)
    jobs = submit(folder, TRIAL, workers, slurm)
    names = ", ".join(str(job.job_id) for job in jobs)
    tell(f"Submitted: {names}. Each stops {STOP_SECONDS} s before its time is up, and is submitted again.")
    tell(f"How it stands:\n  {called('sweep', folder, '--status')}")
    return 0


def _workers(line: CommandLine) -> int:
    text = line.options.get("--workers", "1")
    if not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise UserError(f"--workers: '{text}' should be a whole number, 1 or more.")
    return int(text)


def _find(name: str | None) -> Path:
    """The sweep file of that name in configs/sweeps/ or at that path; that of a sweep that has begun, for its folder."""
    there = sorted((CONFIG_DIR / "sweeps").glob("*.yaml"))
    names = ", ".join(path.name for path in there)
    if name is None:
        raise UserError(f"no sweep: name a file, as in configs/sweeps/digits_beta.yaml. In configs/sweeps/: {names}.")
    for path in (Path(name) / "sweep.yaml", Path(name), CONFIG_DIR / "sweeps" / name, CONFIG_DIR / "sweeps" / f"{name}.yaml"):
        if path.is_file():
            return path
    hint = nearest_name(Path(name).name, [path.name for path in there])
    raise UserError(f"no sweep '{name}'.{hint} In configs/sweeps/: {names}.")


def _trees(file: Path, read: Sweep) -> dict[str, dict[str, Any]]:
    """Label -> config of the cell, without what each trial is given.

    Raises UserError for what a training refuses, as far as it is known without an import; for two cells that are the same, or
    have other images or another split; and for seeds that would share a split.
    """
    trees: dict[str, dict[str, Any]] = {}
    for label, overrides in read.cells.items():
        others = [item.partition("=")[2] for item in overrides if item.startswith(BEGINS)]
        given = [item for item in (*read.overrides, *overrides) if not item.startswith(BEGINS)]
        try:
            tree = read_entry(others[-1] if others else read.config, given)
            check_trainable(tree)
            _check_split(tree, read.seeds)
        except UserError as error:
            raise UserError(f"{file}: cell '{label}': {error}") from None
        for key in OWN:
            tree.pop(key, None)
        if same := next((other for other in trees if trees[other] == tree), None):
            raise UserError(f"{file}: the cells '{same}' and '{label}' are the same; take one out.")
        trees[label] = tree
        _check_compared(file, label, {each: data_of(known) for each, known in trees.items()}, "data")
    return trees


def _check_split(tree: Mapping[str, Any], seeds: Sequence[int]) -> None:
    """Raise UserError where all seeds would have the same samples, which means over seeds take for independent."""
    data = data_of(tree)
    if (tree.get("data") or {}).get("seed") is not None:
        raise UserError("data.seed: a trial's seed decides its split, so that each seed has its own; take it out.")
    if data["num_members"] is data["num_heldout"] is None and len(seeds) > 1:
        file = data["index_file"]
        named = "data.source: all that it has on its sides" if file is None else f"data.index_file: all that {file} names"
        raise UserError(
            f"{named} is one split for all seeds; give data.num_members and data.num_heldout below its counts, which each seed "
            "draws anew, or a single seed."
        )


def _check_compared(file: Path, label: str, cells: Mapping[str, Mapping[str, Any]], section: str) -> None:
    """Raise UserError where a cell can't be compared with the first: they differ in what both must share."""
    first = next(iter(cells))
    if differs := difference(cells[label], cells[first], section):
        raise UserError(f"{file}: cell '{label}' has {differs} as '{first}': cells are compared on the same; make them equal.")


def _check_built(file: Path, read: Sweep, trees: dict[str, dict[str, Any]]) -> None:
    """As `_trees`, for what takes the components themselves; the same are those whose every value is, defaults too.

    Cells that look at quality do so alike.
    """
    checked, qualities = dict[str, Config](), dict[str, Mapping[str, Any]]()
    for label, tree in trees.items():
        try:
            composed = finish({**tree, "name": "trial", "seed": read.seeds[0]}, Config)
        except UserError as error:
            raise UserError(f"{file}: cell '{label}': {error}") from None
        checked[label], quality = composed.config, quality_of(composed.tree)
        if quality is not None:
            qualities[label] = quality
            _check_compared(file, label, qualities, "watch.quality")
        if same := next((other for other in checked if other != label and checked[other] == checked[label]), None):
            raise UserError(f"{file}: the cells '{same}' and '{label}' are the same; take one out.")


def _enqueue(folder: Path, file: Path, read: Sweep, trees: dict[str, dict[str, Any]], *, retry: bool) -> None:
    """Make the sweep's folder what the file says; each trial that isn't there yet waits then, once."""
    digests = {label: hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest() for label, tree in trees.items()}
    is_new = any(not cell_file(folder, label).exists() for label in trees)
    if is_new:
        _check_built(file, read, trees)
    with writing(folder, wait=True):
        journal = Journal(folder)
        journal.check(digests, read.seeds)
        for label, tree in trees.items():
            _write(cell_file(folder, label), as_yaml(tree))
        _write(folder / "sweep.yaml", as_yaml(json.loads(json.dumps(asdict(read)))))
        added = journal.enqueue(read.name, digests, read.seeds)
        again = journal.retry_failed() if retry else 0
    console.print(
        f"Sweep {read.name} in {folder}: {len(read.cells)} cells x {len(read.seeds)} seeds"
        + (f", {added} new trials" if added else "")
        + (f", {again} that failed are tried again" if again else ""),
        highlight=False,
    )


def _write(path: Path, text: str) -> None:
    """A file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(text)
    os.replace(temporary, path)


def _print_help() -> int:
    tell(USAGE.format(program=called("sweep"), words=", ".join(OPTIONS)))
    for path in sorted((CONFIG_DIR / "sweeps").glob("*.yaml")):
        tell(f"\n{path.name}\n  {first_sentence(path.read_text())}")
    return 0
