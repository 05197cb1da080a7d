"""Audit checkpoints: who is exposed, how sure we are, what it means."""

import sys

from ldm_privacy.recipes.cli import evaluate as main
from ldm_privacy.recipes.terminal import run_program

if __name__ == "__main__":
    run_program(main, sys.argv[1:])
