"""The commands that the pages tell a reader to type: each is one that the programs take."""

import importlib
import re
import shlex
from pathlib import Path

import pytest

from ldm_privacy.config.command_line import parse
from ldm_privacy.config.compose import CONFIG_DIR, compose, read_entry
from ldm_privacy.config.schema import TargetConfig
from ldm_privacy.plugins import plugin_names
from ldm_privacy.recipes import cli
from ldm_privacy.recipes.evaluate import check as evaluate_check
from ldm_privacy.recipes.sweep import sweep
from ldm_privacy.recipes.sweep.folder import read_file
from tests.docs.pages import PAGES, ROOT, name_of

TYPED = [*PAGES, *sorted((ROOT / "configs").glob("*.yaml")), *sorted((ROOT / "examples").glob("*.py"))]
SHELL = {r"\$\([^()]*\)": "1", r"\$seed\b": "0", r"\$on\b": "members", r"; echo \$\?": "", r" \|\| .*": ""}
PROGRAM = r"^(?:\$ |#? *)(?:pip .*&& )?(?:python |torchrun .*)?\b(train|evaluate)\.py (.*)$"
INSTALLED = rf"^(?:\$ )?ldm-privacy ({'|'.join(cli.COMMANDS)}) (.*)$"
CELL = r"`(?:python (train|evaluate)\.py|ldm-privacy (\w+)) ([^`]*)`"
SCRIPT = r"^(?:\w+=\S+ )*python (?:-m (benchmarks[\w.]*)|((?:benchmarks|examples)/\w+\.py))(.*)$"


def lines(page: Path) -> str:
    """A page's text with what a shell would put in."""
    text = page.read_text().replace("\\\n", " ")
    for pattern, value in SHELL.items():
        text = re.sub(pattern, value, text)
    return text


def commands(page: Path) -> list[tuple[str, list[str]]]:
    """Command and words of every line, and of every cell of a table, that calls a program of ours."""
    text = lines(page)
    found = re.findall(PROGRAM, text, re.MULTILINE) + re.findall(INSTALLED, text, re.MULTILINE)
    found += [
        (one or other, words) for row in text.splitlines() if row.startswith("|") for one, other, words in re.findall(CELL, row)
    ]
    # "..." stands for the words of the line above
    return [(command, [each for each in shlex.split(words.partition("  #")[0]) if each != "..."]) for command, words in found]


def entry(words: dict[str, str]) -> str:
    """The entry file of a run that is called as that is; digits.yaml for others."""
    name = re.search(r"runs/(\w+)", words.get("ckpt") or words.get("resume") or "")
    return f"{name[1]}.yaml" if name and (CONFIG_DIR / f"{name[1]}.yaml").is_file() else "digits.yaml"


def check_keys(config: str, overrides: list[str]) -> None:
    if any(item.startswith("plugins=") for item in overrides):
        with pytest.MonkeyPatch.context() as patch:  # the plug-ins are somewhere else
            patch.setattr(importlib.import_module("ldm_privacy.config.compose"), "check_plugins", plugin_names)
            read_entry(config, overrides)
    else:
        compose(config, overrides)


def check(command: str, words: list[str]) -> None:
    """As the command itself checks them, but for files that aren't here."""
    if command == "sweep":
        line = parse(words, words=("out",), options=sweep.WORDS)
        if line.config.startswith("configs/"):
            read_file(ROOT / line.config, line.overrides)
        return
    if command == "frontier":
        assert all(not word.startswith("-") for word in words)
        return
    beside = ("resume", "dry_run", "ckpt", "out", *evaluate_check.BESIDE)
    line = parse(words, words=beside, takes_paths=command in ("pick", "suspect"))
    if line.help:
        return
    if command != "train" and line.config:  # a target that was trained elsewhere
        assert all(item.startswith(evaluate_check.TARGET_KEYS) for item in line.overrides), words
        read_entry(line.config, line.overrides, TargetConfig, is_whole=False)
        return
    if command != "train" or "resume" in line.words:
        allowed = cli.RESUMABLE if command == "train" else evaluate_check.CHECKPOINT_KEYS
        assert all(item.startswith(allowed) for item in line.overrides), words
    if line.config is None or (CONFIG_DIR / line.config).is_file():  # or it is the reader's own
        check_keys(line.config or entry(line.words), line.overrides)


@pytest.mark.parametrize("page", [page for page in TYPED if commands(page)], ids=name_of)
def test_every_command_has_keys_and_values_that_there_are(page):
    mistakes = re.compile(r"trainer\.max_epoch=3|latnet")
    for command, words in commands(page):
        if not mistakes.search(" ".join(words)):  # shown for the line that tells of them
            check(command, words)


@pytest.mark.parametrize("page", [page for page in TYPED if re.search(SCRIPT, lines(page), re.MULTILINE)], ids=name_of)
def test_every_script_is_there_and_has_its_options(page):
    for module, path, words in re.findall(SCRIPT, lines(page), re.MULTILINE):
        base = ROOT / (path or module.replace(".", "/"))
        file = next(each for each in (base, base.with_suffix(".py"), base / "__main__.py") if each.is_file())
        text = "".join(each.read_text() for each in (file.parent.glob("*.py") if file.name == "__main__.py" else [file]))
        for option in re.findall(r"(?<= )--[\w-]+", words.partition("  #")[0]):
            assert f'"{option}"' in text, f"{module or path}: {option}"
