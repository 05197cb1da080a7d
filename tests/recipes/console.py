"""The console script, as a file."""

from ldm_privacy.recipes.cli import program

if __name__ == "__main__":
    program()
