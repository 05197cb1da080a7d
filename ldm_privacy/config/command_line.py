"""The command line that train.py and evaluate.py share: --config FILE, --help and key=value."""

import inspect
import itertools
import json
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from pathlib import Path
from types import MappingProxyType

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ldm_privacy.config.check import Component
from ldm_privacy.config.compose import entry_files, parse_overrides
from ldm_privacy.config.schema import Config
from ldm_privacy.errors import UserError
from ldm_privacy.registry import nearest_name


@dataclass
class CommandLine:
    """What was asked: options, words and paths of the program itself, and overrides of the config."""

    config: str | None = None
    help: bool = False
    options: dict[str, str] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)
    overrides: list[str] = field(default_factory=list)
    paths: list[Path] = field(default_factory=list)

    def flag(self, word: str) -> bool:
        """Whether `word=true` was given. Raises UserError for anything but true and false."""
        value = self.words.get(word, "false").lower()
        if value not in ("true", "false"):
            raise UserError(f"{word}: '{value}' is neither true nor false.")
        return value == "true"


def parse(
    arguments: Sequence[str],
    words: Sequence[str],
    *,
    options: Mapping[str, bool] = MappingProxyType({}),
    takes_paths: bool = False,
) -> CommandLine:
    """Split the command line.

    Args:
        arguments: Without the program's name.
        words: Keys that belong to the program ("resume", "ckpt", "dry_run"), not to the config.
        options: Further ones ("--workers") -> whether they take a value; a program that has some takes its file bare, without
            --config.
        takes_paths: What is neither an option nor key=value is a path.
    """
    line, known = CommandLine(), [*options, *([] if options else ["--config"]), "--help"]
    rest = list(arguments)
    while rest:
        item = rest.pop(0)
        if item in ("-h", "--help"):
            line.help = True
        elif not options and (item == "--config" or item.startswith("--config=")):
            _, separator, name = item.partition("=")
            if not separator and not rest:
                raise UserError(f"--config: name a config. In configs/: {entry_names()}.")
            line.config = name if separator else rest.pop(0)
        elif (option := item.partition("=")[0]) in options:
            _, separator, value = item.partition("=")
            if options[option] and not separator and not rest:
                raise UserError(f"{option}: give it a value. See --help.")
            line.options[option] = value if separator or not options[option] else rest.pop(0)
        elif item.startswith("-"):
            raise UserError(f"'{item}': unknown option.{nearest_name(item, known)} See --help.")
        elif takes_paths and ("=" not in item or Path(item).exists()):
            line.paths.append(Path(item).expanduser())
        elif options and line.config is None and "=" not in item:
            line.config = item
        elif item.partition("=")[0] in words:
            key, _, value = item.partition("=")
            line.words[key] = value
        else:
            line.overrides.append(item)
    parse_overrides(line.overrides)
    return line


def entry_names() -> str:
    """The configs in configs/, as messages list them."""
    return ", ".join(path.name for path in entry_files())


def allow_only(overrides: Sequence[str], prefixes: Sequence[str], why: str, *, refused: Sequence[str] = ()) -> None:
    """Raise UserError for an override outside the given sections, or of one of the refused keys in them."""
    for item in overrides:
        key = item.partition("=")[0]
        if not key.startswith(tuple(prefixes)) or f"{key}.".startswith(tuple(f"{each}." for each in refused)):
            allowed = ", ".join(f"{prefix}*" for prefix in prefixes)
            without = f" without {', '.join(refused)}" if refused else ""
            raise UserError(f"'{key}' can't be changed here: {why}. Allowed: {allowed}{without}.")


def print_help(usage: str, console: Console) -> int:
    """Usage, the configs there are, and every key with type, default and meaning. Returns 0, the exit code."""
    console.print(usage, markup=False, highlight=False)
    configs = Table("config", "what it is", title="Configs (configs/)", title_justify="left", box=None)
    for path in entry_files():
        configs.add_row(path.name, first_sentence(path.read_text()))
    console.print(configs)
    keys = Table(title="Keys", title_justify="left", box=None)
    keys.add_column("key", no_wrap=True)
    for column in ("type", "default", "meaning"):
        keys.add_column(column, overflow="fold")
    for row in key_rows(Config):
        keys.add_row(*(escape(cell) for cell in row))
    console.print(keys)
    return 0


def key_rows(section: type, prefix: str = "") -> Iterator[tuple[str, str, str, str]]:
    """Key, type, default ("" where one must be given) and meaning of all that a section of the config may hold."""
    hints = typing.get_type_hints(section)
    assert is_dataclass(section)
    for entry in fields(section):
        if is_dataclass(hints[entry.name]) and "registry" not in entry.metadata:
            yield from key_rows(typing.cast(type, hints[entry.name]), f"{prefix}{entry.name}.")
            continue
        registry = entry.metadata.get("registry")
        kind = inspect.formatannotation(hints[entry.name]).replace("typing.", "").replace("ldm_privacy.config.check.", "")
        if registry is not None:
            kind = ("label: " if entry.metadata["many"] else "") + "class: " + " | ".join(registry)
        yield prefix + entry.name, kind, _shown_default(entry), entry.metadata["help"]


def _shown_default(entry: Field[typing.Any]) -> str:
    """As YAML has it; "" where one must be given."""
    default = entry.default if entry.default_factory is MISSING else entry.default_factory()
    if default is MISSING:
        return ""
    return default.name if isinstance(default, Component) else json.dumps(default).strip('"')


def first_sentence(text: str) -> str:
    """What a config is, by the first comment in it."""
    head = itertools.takewhile(lambda line: line.startswith("#"), text.splitlines())
    told = " ".join(line.lstrip("# ").strip() for line in head)
    return re.split(r"(?<=[.?]) | (?:python|pip|ldm-privacy) ", told)[0]
