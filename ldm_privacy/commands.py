"""Commands that the program prints: whoever pastes one into a shell gets what was meant."""

import shlex
import sys
from pathlib import Path


def command(*words: str | Path) -> str:
    """The words as one line for a shell; those with spaces or characters of its own are quoted."""
    return shlex.join(map(str, words))


def called(program: str, *words: str | Path) -> str:
    """What calls `train` or `evaluate` with these words, as this program was called: a script, or the console script."""
    script = Path(sys.argv[0])
    is_script = script.name in ("train.py", "evaluate.py")
    caller = ("python", script.with_name(f"{program}.py")) if is_script else ("ldm-privacy", program)
    return command(*caller, *words)
