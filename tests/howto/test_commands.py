"""The commands that the pages tell a reader to type: each is one that the programs take."""

import re
import shlex
from pathlib import Path

import pytest

from ldm_privacy.config.compose import compose, read_entry
from ldm_privacy.config.schema import TargetConfig
from ldm_privacy.recipes import cli, evaluate_check

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "configs").glob("*.yaml"))]
SHELL = {r"\$\([^()]*\)": "1", r"\$seed\b": "0", r"\$on\b": "members"}


def commands(page: Path) -> list[tuple[str, list[str]]]:
    """Program and words of every `train.py` and `evaluate.py` line; what a shell would put in is filled in."""
    text = page.read_text().replace("\\\n", " ")
    for pattern, value in SHELL.items():
        text = re.sub(pattern, value, text)
    lines = re.findall(r"^#?\s*(?:python |torchrun .*)?\b(train|evaluate)\.py (.*)$", text, re.MULTILINE)
    # "..." stands for the words of the line above
    return [(program, [each for each in shlex.split(words.partition("  #")[0]) if each != "..."]) for program, words in lines]


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=lambda page: page.name)
def test_every_command_has_keys_and_values_that_there_are(page):
    for program, words in commands(page):
        line = cli.parse(words, words=("resume", "dry_run", "ckpt", "out", *evaluate_check.BESIDE))
        if line.help:
            continue
        if program == "evaluate" and line.config:  # a target that was trained elsewhere
            assert all(item.startswith(evaluate_check.TARGET_KEYS) for item in line.overrides), words
            read_entry(line.config, line.overrides, TargetConfig, is_whole=False)
            continue
        config = line.config if program == "train" and line.config else "digits.yaml"
        if program == "evaluate" or "resume" in line.words:
            allowed = cli.RESUMABLE if program == "train" else evaluate_check.CHECKPOINT_KEYS
            assert all(item.startswith(allowed) for item in line.overrides), words
        if any(item.startswith("plugins=") for item in line.overrides):
            read_entry(config, line.overrides)  # the plug-ins are somewhere else
        else:
            compose(config, line.overrides)
