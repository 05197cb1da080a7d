"""Commands that are printed: a shell reads the words that were meant."""

import shlex
import sys

import pytest

from ldm_privacy.commands import called, command


@pytest.mark.parametrize("word", ["plain", "with space", "it's", 'a"b', "$HOME", "a;b", "[x]", "", "*.ckpt", "ü"])
def test_a_shell_reads_the_words_that_were_meant(word):
    assert shlex.split(command("wandb", "leet", word)) == ["wandb", "leet", word]


@pytest.mark.parametrize(
    ("program", "line"),
    [
        ("train.py", "python evaluate.py 'ckpt=my runs/x'"),
        ("/opt/the code/evaluate.py", "python '/opt/the code/evaluate.py' 'ckpt=my runs/x'"),
        ("/usr/bin/ldm-privacy", "ldm-privacy evaluate 'ckpt=my runs/x'"),
    ],
)
def test_a_command_is_called_as_this_program_was(monkeypatch, program, line):
    monkeypatch.setattr(sys, "argv", [program])
    assert called("evaluate", "ckpt=my runs/x") == line
