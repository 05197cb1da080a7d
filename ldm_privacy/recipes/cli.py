"""The commands: parse, check what can be known at once, then call one recipe. Nothing heavy is imported before that."""

import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from ldm_privacy.commands import called
from ldm_privacy.config.command_line import CommandLine, allow_only, entry_names, parse, print_help
from ldm_privacy.config.compose import (
    FOR_TARGETS,
    RESUMABLE,
    check_sections,
    find_entry,
    finish,
    merge,
    parse_overrides,
    read_entry,
    read_yaml,
)
from ldm_privacy.config.schema import Config
from ldm_privacy.errors import UserError
from ldm_privacy.recipes.evaluate.check import BESIDE, OURS, check_ours, check_targets
from ldm_privacy.recipes.frontier.command import frontier
from ldm_privacy.recipes.known import check_trainable
from ldm_privacy.recipes.pick.command import pick
from ldm_privacy.recipes.suspect.command import suspect
from ldm_privacy.recipes.sweep.sweep import sweep
from ldm_privacy.recipes.terminal import LOADING, console, is_first, run_program, waiting
from ldm_privacy.registry import nearest_name
from ldm_privacy.runs.folder import RunFolder, check_name, check_writable
from ldm_privacy.runs.lock import writing
from ldm_privacy.targets.place import check_may_be_denoiser, target_name

if TYPE_CHECKING:
    from ldm_privacy.recipes.gate import Evaluated

TRAIN = """{program} --config digits.yaml [key=value ...]     train; key=value changes the config
{program} --config digits.yaml dry_run=true        print the plan and stop
{program} resume=runs/digits                       go on after a stop"""

EVALUATE = """{program} ckpt=runs/digits/checkpoints/last.ckpt [out=FOLDER] [audit.* data.* watch.* trainer.* key=value ...]
{program} ckpt=runs/pokemon/checkpoints/last.ckpt base=FOLDER    where the pipeline that was fine-tuned lies now
{program} ckpt=b.ckpt reference=a.ckpt    compare its scores with another checkpoint's: an earlier one, one of other images
{program} ckpt=[a.ckpt,b.ckpt,...]    audit each and compare them; a scores.parquet can stand for a checkpoint
{program} ckpt=my-sd-model --config audit.yaml data.source.class=folder data.source.path=photos data.index_file=split.npz
                                       audit a folder of diffusers; ckpt=lora.safetensors base=FOLDER, ckpt=model.safetensors
                                       layout=FOLDER; reference=FOLDER for another model that it is compared with"""


def train(arguments: list[str]) -> int:
    """Train, or go on with a run; returns the exit code."""
    line = parse(arguments, words=("resume", "dry_run"))
    if line.help:
        return print_help(TRAIN.format(program=called("train")), console)
    dry_run, resumed = line.flag("dry_run"), None
    if "resume" in line.words:
        resumed = RunFolder.open(line.words["resume"], config=line.config)
        allow_only(line.overrides, RESUMABLE, "a resumed run keeps its stored config")
        tree = merge(read_yaml(resumed.config), parse_overrides(line.overrides))
        check_sections(tree)
    elif line.config is None:
        meant = next((hint for item in line.overrides if (hint := nearest_name(item.partition("=")[0], ["resume"]))), "")
        raise UserError(f"no config: name one, as in --config digits.yaml.{meant} In configs/: {entry_names()}.")
    else:
        if find_entry(line.config).name == FOR_TARGETS:
            raise UserError(f"--config: {line.config} is for evaluate.py, which audits what was trained elsewhere.")
        tree = read_entry(line.config, line.overrides)
        check_name(tree["name"])
        place = str(tree.get("output_dir", Config.output_dir))
        if "${" not in place:  # or it is checked once that is known
            check_writable(Path(place), "output_dir")
    check_trainable(tree)
    # Whether another process has it is known at once, and it is held while its checkpoint is read.
    with nullcontext() if resumed is None or dry_run or not is_first() else writing(resumed.path):
        composed = finish(tree, Config)  # first: a plug-in that can't be imported is told without what the recipe imports
        with waiting(LOADING):
            from ldm_privacy.recipes.train.train import train as recipe

        return recipe(composed, resumed, dry_run=dry_run)


def evaluate(arguments: list[str]) -> int:
    """Audit one checkpoint or another target, or several and compare them; returns the exit code."""
    line = parse(arguments, words=("ckpt", "out", *BESIDE))
    if line.help:
        return print_help(EVALUATE.format(program=called("evaluate")), console)
    named_so = line.words.get("ckpt", "")
    # A path may have a comma in it.
    names = [named_so] if Path(named_so).exists() else named_so.strip("[]").split(",")
    paths = [Path(name.strip()).expanduser() for name in names if name.strip()]
    if not paths:
        raise UserError("ckpt: name a checkpoint, as in ckpt=runs/digits/checkpoints/last.ckpt.")
    out = Path(line.words["out"]) if line.words.get("out") else None
    if line.config is None and any(path.suffix in OURS for path in paths):
        return _evaluate_ours(line, paths, out)
    return _evaluate_targets(line, paths, out)


def _evaluate_ours(line: CommandLine, paths: Sequence[Path], out: Path | None) -> int:
    """Checkpoints of this program, and score files, which bring their config."""
    tree = check_ours(line, paths[0])
    reference = Path(line.words["reference"]).expanduser() if line.words.get("reference") else None
    for path in [*paths, *([] if reference is None else [reference])]:
        check_may_be_denoiser(path)
    for path in {paths[0], *(path for path in paths if path.suffix != ".parquet")}:  # beside which files will be written
        check_writable(out or RunFolder.around(path).path, "out")
    if len(paths) == 1 and paths[0].suffix == ".parquet":
        raise UserError(f"ckpt: {paths[0]} is compared with others; name two at least, or a checkpoint to audit.")
    if tree.get("gate") and (scores := next((path for path in paths if path.suffix == ".parquet"), None)):
        raise UserError(f"gate: {scores} holds scores alone, and no audit; name the checkpoint that they are of.")
    with waiting(LOADING):
        from ldm_privacy.recipes.evaluate.evaluate import evaluate_one, evaluate_several
        from ldm_privacy.recipes.gate import conclude
        from ldm_privacy.recipes.reference import check_references

    if reference is not None:
        check_references(paths, reference, line.overrides)
    named = _named(paths)
    if len(paths) == 1:
        evaluated = {name: evaluate_one(path, line.overrides, out, reference) for name, path in named.items()}
    else:
        evaluated = evaluate_several(named, out, lambda path, out: evaluate_one(path, line.overrides, out, reference))
    return conclude(evaluated)


def _evaluate_targets(line: CommandLine, paths: Sequence[Path], out: Path | None) -> int:
    """Targets that were not trained here; the config says which data, and who is a member."""
    tree, beside, names = check_targets(line, paths, out)
    with waiting(LOADING):
        from ldm_privacy.recipes.evaluate.evaluate import evaluate_several
        from ldm_privacy.recipes.evaluate.target import TargetEvaluation
        from ldm_privacy.recipes.gate import conclude

    evaluate = TargetEvaluation(tree, **beside)

    def one(path: Path, out: Path | None) -> "Evaluated":
        words = [f"{word}={place}" for word, place in beside.items()]
        command = called("evaluate", f"ckpt={path}", *words, "--config", line.config or FOR_TARGETS, *line.overrides)
        return evaluate(path, names[path], out, command=command)

    named = _named(paths)
    evaluated = {each: one(path, out) for each, path in named.items()} if len(paths) == 1 else evaluate_several(named, out, one)
    return conclude(evaluated)


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "train": train,
    "evaluate": evaluate,
    "sweep": sweep,
    "frontier": frontier,
    "pick": pick,
    "suspect": suspect,
}


def main(arguments: list[str]) -> int:
    """`ldm-privacy COMMAND ...`; returns the exit code."""
    name, *rest = arguments or ["--help"]
    if name in ("-h", "--help"):
        for command in COMMANDS:
            console.print(f"ldm-privacy {command} --help", highlight=False)
        return 0
    if name not in COMMANDS:
        raise UserError(f"'{name}' is no command.{nearest_name(name, list(COMMANDS))} There are: {', '.join(COMMANDS)}.")
    return COMMANDS[name](rest)


def program() -> None:
    """The console script."""
    run_program(main, sys.argv[1:])


def _named(paths: Sequence[Path]) -> dict[str, Path]:
    """Each under a short name of its own, in their order."""
    named: dict[str, Path] = {}
    for path in paths:
        named[next(each for each in _names_of(path) if each not in named)] = path
    return named


def _names_of(path: Path) -> list[str]:
    """Short names for a checkpoint or score file, the best first: run/checkpoint, then with numbers."""
    of_run = path.parent.name if path.stem == "scores" else path.stem
    if path.suffix not in OURS:
        return [target_name(path), *(f"{target_name(path)}-{number}" for number in range(2, 100))]
    name = f"{RunFolder.around(path).path.absolute().name}/{of_run}"
    return [name, *(f"{name}-{number}" for number in range(2, 100))]
