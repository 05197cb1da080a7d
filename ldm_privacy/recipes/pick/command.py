"""`ldm-privacy pick`: which checkpoints are meant, and in which order. Nothing heavy is imported before that is known."""

import os.path
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from ldm_privacy.commands import called
from ldm_privacy.config.command_line import CommandLine, parse, print_help
from ldm_privacy.config.compose import FOR_TARGETS, merge, read_yaml
from ldm_privacy.config.schema import TargetConfig
from ldm_privacy.errors import UserError
from ldm_privacy.recipes.evaluate.check import BESIDE, check_ours, check_targets
from ldm_privacy.recipes.gate_check import check_gate, has_limit
from ldm_privacy.recipes.terminal import LOADING, console, waiting
from ldm_privacy.runs.folder import RunFolder, check_writable
from ldm_privacy.targets.place import GENERIC, check_is_file, target_name

USAGE = """{program} runs/digits/checkpoints gate.auroc=0.6 [out=FOLDER] [audit.* data.* gate.* trainer.* key=value ...]
                                       audit every checkpoint of a run and name the last one that is within the limits
{program} my-lora base=stable-diffusion-v1-5 --config audit.yaml gate.auroc=0.6 data.source.class=folder ...
                                       the same of a folder of LoRA files or models, by the numbers in their names
{program} b.safetensors a.safetensors ...     of these, in this order

Exit code 0: one is named; 1: the first that was trained fails already; 3: it is undecided; 2: a mistake."""

NO_LIMIT = "gate: there is no limit to pick by; give one, as in gate.auroc=0.6."
MODEL = ("model_index.json", *(f"{name}.safetensors" for name in GENERIC))
"""Files one of which makes a folder a target."""


def pick(arguments: list[str]) -> int:
    """Name the last safe checkpoint; returns the exit code."""
    line = parse(arguments, words=("out", *BESIDE), takes_paths=True)
    if line.help:
        return print_help(USAGE.format(program=called("pick")), console)
    if not line.paths:
        raise UserError("name a folder of checkpoints, as in ldm-privacy pick runs/digits/checkpoints gate.auroc=0.6.")
    for path in line.paths:
        if not path.exists():
            raise UserError(f"{path} does not exist; name a folder of checkpoints, such as runs/digits/checkpoints.")
    paths = _inside(line.paths[0]) if len(line.paths) == 1 and line.paths[0].is_dir() else line.paths
    out = Path(line.words["out"]) if line.words.get("out") else None
    if any(path.suffix == ".ckpt" for path in paths):
        return _pick_ours(line, paths, out)
    return _pick_targets(line, paths, out)


def _pick_ours(line: CommandLine, paths: Sequence[Path], out: Path | None) -> int:
    """Checkpoints of one run of this program; their order is that of their epochs."""
    if line.config is not None:
        raise UserError(f"--config: {paths[0]} is a checkpoint of this program, which brings its config; leave it out.")
    if "reference" in line.words:
        raise UserError("reference: checkpoints of one run are picked from as they are; evaluate one of them with a reference.")
    tree = check_ours(line, paths[0])
    for path in paths:
        check_is_file(path)
    run = RunFolder.around(paths[0])
    if run.config.is_file():  # or it is known once a checkpoint is read
        tree = merge(read_yaml(run.config), tree)
        check_gate(tree)
        check_limit(tree.get("gate") or {})
    out = out or run.path / "pick"
    check_writable(out, "out")
    with waiting(LOADING):
        from ldm_privacy.recipes.pick.pick import pick_of_run

    return pick_of_run(paths, line.overrides, out)


def _pick_targets(line: CommandLine, paths: Sequence[Path], out: Path | None) -> int:
    """Targets that were not trained here, in the order that they were named in, or in that of the numbers in their names."""
    place = Path(os.path.abspath(paths[0])).parent if line.paths == paths else line.paths[0]
    asked = check_targets(line, paths, out)
    check_limit(asked.tree.get("gate") or {})
    if out is None:
        output_dir = str(asked.tree.get("output_dir", TargetConfig.output_dir))
        if "${" in output_dir:
            raise UserError(f"out: name a folder for what is found; output_dir is {output_dir}, which is not known yet.")
        out = Path(output_dir) / target_name(place) / "pick"
    beside = [f"{word}={each}" for word, each in asked.beside.items()]
    words = [*beside, "--config", line.config or FOR_TARGETS, *line.overrides]
    with waiting(LOADING):
        from ldm_privacy.recipes.pick.pick import pick_of_targets

    return pick_of_targets(asked, paths, words, out)


def check_limit(section: dict[str, object]) -> None:
    """Raise UserError where a gate's section has no limit."""
    if not has_limit(section):
        raise UserError(NO_LIMIT)


def _inside(folder: Path) -> list[Path]:
    """The checkpoints in a folder, or in that of a run; targets in the order of training. Raises UserError where none are."""
    if ours := sorted(folder.glob("*.ckpt")) or sorted((folder / "checkpoints").glob("*.ckpt")):
        return ours
    if (folder / MODEL[0]).is_file():
        raise UserError(f"{folder} is one model; name a folder that holds several, or audit this one with evaluate.")
    if found := [path for path in sorted(folder.iterdir()) if _is_target(path)]:
        return in_order(found)
    if runs := sorted({path.parents[1] for path in folder.glob("*/checkpoints/*.ckpt")}):
        raise UserError(f"{folder} holds whole runs; name the checkpoints of one, such as {runs[0] / 'checkpoints'}.")
    raise UserError(f"{folder} holds no checkpoints: no .ckpt or .safetensors file and no folder of a model.")


def _is_target(path: Path) -> bool:
    """Whether it may be one: a file of weights, or a folder with what makes it a model or an adapter."""
    return any((path / name).is_file() for name in MODEL) if path.is_dir() else path.suffix == ".safetensors"


def in_order(paths: Sequence[Path]) -> list[Path]:
    """Targets by the last number in their names: lora-100, lora-200, ...; one without, as the end of a training is kept, last.

    A name that all others begin with has none of its own: sd15 comes after sd15-000010 and sd15-000020.

    Raises:
        UserError: Two can't be told apart so.
    """
    names = {path: target_name(path) for path in paths}

    def place(path: Path) -> float:
        others = [name for other, name in names.items() if other is not path]
        numbers = re.findall(r"\d+", names[path])
        is_stem = others and all(re.match(re.escape(names[path]) + r"\D", name) for name in others)
        return float(numbers[-1]) if numbers and not is_stem else float("inf")

    found = sorted(paths, key=place)
    for before, after in pairwise(found):
        if place(before) == place(after):
            raise UserError(
                f"{before} and {after}: their names don't tell which is later; name all of them in the order of training."
            )
    return found
