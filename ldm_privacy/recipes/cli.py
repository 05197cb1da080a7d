"""The commands: parse, check what can be known at once, then call one recipe. Nothing heavy is imported before that."""

import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from ldm_privacy.commands import called
from ldm_privacy.config.command_line import allow_only, entry_names, parse, print_help
from ldm_privacy.config.compose import RESUMABLE, check_sections, finish, merge, parse_overrides, read_entry, read_yaml
from ldm_privacy.config.schema import Config
from ldm_privacy.errors import UserError
from ldm_privacy.recipes.pilots import read_pilots
from ldm_privacy.recipes.terminal import console, is_first, run_program
from ldm_privacy.registry import nearest_name
from ldm_privacy.runs.folder import RunFolder, check_name, check_writable
from ldm_privacy.runs.lock import writing
from ldm_privacy.targets.place import check_is_file

TRAIN = """{program} --config digits.yaml [key=value ...]     train; key=value changes the config
{program} --config digits.yaml dry_run=true        print the plan and stop
{program} resume=runs/digits                       go on after a stop"""

EVALUATE = """{program} ckpt=runs/digits/checkpoints/last.ckpt [out=FOLDER] [audit.* data.* watch.* trainer.* key=value ...]
{program} ckpt=[a.ckpt,b.ckpt,...]    audit each and compare them; a scores.parquet can stand for a checkpoint"""

SPLIT_KEYS = tuple(
    f"data.{key}"
    for key in (
        *("num_members", "num_heldout", "num_public", "index_file", "group_column", "resolution", "channels", "seed"),
        "repeats",
    )
)


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
        tree = read_entry(line.config, line.overrides)
        check_name(tree["name"])
        place = str(tree.get("output_dir", Config.output_dir))
        if "${" not in place:  # or it is checked once that is known
            check_writable(Path(place), "output_dir")
    if "${" not in str(tree.get("audit")):  # as above
        read_pilots(tree)
    # Whether another process has it is known at once, and it is held while its checkpoint is read.
    with nullcontext() if resumed is None or dry_run or not is_first() else writing(resumed.path):
        composed = finish(tree, Config)  # first: a plug-in that can't be imported is told without what the recipe imports
        from ldm_privacy.recipes.train import train as recipe

        return recipe(composed, resumed, dry_run=dry_run)


def evaluate(arguments: list[str]) -> int:
    """Audit one checkpoint, or several and compare them; returns the exit code."""
    line = parse(arguments, words=("ckpt", "out"))
    if line.help:
        return print_help(EVALUATE.format(program=called("evaluate")), console)
    if line.config is not None:
        raise UserError("--config: an evaluation takes its config from the checkpoint; change keys with key=value.")
    named_so = line.words.get("ckpt", "")
    names = [named_so] if Path(named_so).is_file() else named_so.strip("[]").split(",")  # a path may have a comma in it
    paths = [Path(name.strip()) for name in names if name.strip()]
    if not paths:
        raise UserError("ckpt: name a checkpoint, as in ckpt=runs/digits/checkpoints/last.ckpt.")
    why = "the checkpoint brings its own networks and split (audit.max_samples limits the audited samples)"
    allow_only(line.overrides, ("audit.", "data.", "geometry.", "trainer.", "watch.", "plugins"), why, refused=SPLIT_KEYS)
    check_sections(parse_overrides(line.overrides))
    for path in paths:
        check_is_file(path)
    out = Path(line.words["out"]) if line.words.get("out") else None
    for path in {paths[0], *(path for path in paths if path.suffix != ".parquet")}:  # beside which files will be written
        check_writable(out or RunFolder.around(path).path, "out")
    if len(paths) == 1 and paths[0].suffix == ".parquet":
        raise UserError(f"ckpt: {paths[0]} is compared with others; name two at least, or a checkpoint to audit.")
    from ldm_privacy.recipes.evaluate import evaluate_one, evaluate_several

    if len(paths) == 1:
        evaluate_one(paths[0], line.overrides, out)
        return 0
    named: dict[str, Path] = {}
    for path in paths:
        named[next(each for each in _names_of(path) if each not in named)] = path
    evaluate_several(named, line.overrides, out)
    return 0


COMMANDS: dict[str, Callable[[list[str]], int]] = {"train": train, "evaluate": evaluate}


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


def _names_of(path: Path) -> list[str]:
    """Short names for a checkpoint or score file, the best first: run/checkpoint, then with numbers."""
    of_run = path.parent.name if path.stem == "scores" else path.stem
    name = f"{RunFolder.around(path).path.absolute().name}/{of_run}"
    return [name, *(f"{name}-{number}" for number in range(2, 100))]
