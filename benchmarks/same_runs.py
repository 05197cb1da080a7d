"""Whether two runs end equal: a resumed one and one that was not broken."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

OWN = ("wandb", ".lock")
"""What every run has for itself: its W&B files, and who wrote to it last."""


def names_in(run: Path) -> set[str]:
    """Its files, relative to it, without its OWN."""
    names = (path.relative_to(run) for path in run.rglob("*") if path.is_file())
    return {str(name) for name in names if not name.parts[0].startswith(OWN) and not name.name.startswith(OWN)}


def difference(run: Path, whole: Path) -> str:
    """The first difference of two runs; empty where there is none. Pictures, and the page that holds them, are not compared."""
    readers: dict[str, Callable[[Path], Any]] = {
        **dict.fromkeys((".csv", ".parquet", ".json", ".yaml", ".npz"), Path.read_bytes),
        ".safetensors": load_file,
        ".ckpt": lambda path: {**torch.load(path, weights_only=True), "loops": None},  # counts of where it went on
    }
    names = [names_in(each) for each in (run, whole)]
    if names[0] != names[1]:
        extra, missing = (sorted(some - other) for some, other in (names, names[::-1]))
        return "; ".join(f"{what} {', '.join(found)}" for what, found in (("left", extra), ("missing", missing)) if found)
    rows = [(each / "metrics.csv").read_text().splitlines() for each in (run, whole)]
    if rows[0] != rows[1]:
        twice = [row for row, count in Counter(row.rpartition(",")[0] for row in rows[0]).items() if count > 1]
        odd = sorted(set(rows[0]) ^ set(rows[1]))
        return f"metrics.csv: {len(twice)} rows twice, {len(odd)} others: {(twice or odd or ['another order'])[0]}"
    for name in sorted(names[0]):
        read = Path.read_bytes if name.startswith("scores/") else readers.get(Path(name).suffix, lambda path: None)
        mine, theirs = read(run / name), read(whole / name)
        if not same(mine, theirs):
            keys = [key for key in mine if not same(mine[key], theirs[key])] if isinstance(mine, dict) else []
            return f"{name} differs" + (f" in {', '.join(keys)}" if keys else "")
    return ""


def same(mine: Any, theirs: Any) -> bool:
    """Whether two parts of a checkpoint are equal to the bit."""
    if isinstance(mine, dict) and isinstance(theirs, dict):
        return mine.keys() == theirs.keys() and all(same(value, theirs[key]) for key, value in mine.items())
    if isinstance(mine, list | tuple):
        return len(mine) == len(theirs) and all(map(same, mine, theirs))
    if isinstance(mine, torch.Tensor) and isinstance(theirs, torch.Tensor):
        as_bytes = (each.contiguous().reshape(-1).view(torch.uint8) for each in (mine, theirs))  # nan is what it is
        return (mine.dtype, mine.shape) == (theirs.dtype, theirs.shape) and torch.equal(*as_bytes)
    return bool(mine == theirs)
