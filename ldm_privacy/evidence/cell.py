"""A setting of a sweep, as it is known before anything of its trainings is read. Nothing heavy is imported here."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Cell:
    """A setting of a sweep.

    Attributes:
        label: Its name.
        overrides: What sets it apart from the config of the sweep, key=value.
        baseline: The others are compared with it.
        runs: The folders of its trainings, one a seed, as far as they have begun.
        failed: Why trainings are not among them, a sentence each without its full stop.
    """

    label: str
    overrides: Sequence[str] = ()
    baseline: bool = False
    runs: Sequence[Path] = ()
    failed: Sequence[str] = ()
