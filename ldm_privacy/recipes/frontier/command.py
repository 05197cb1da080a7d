"""`ldm-privacy frontier`: which runs are meant. Nothing heavy is imported before that is known."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ldm_privacy.errors import UserError
from ldm_privacy.evidence.cell import Cell
from ldm_privacy.recipes.sweep.folder import cells_of, read_folder
from ldm_privacy.recipes.terminal import LOADING, tell, waiting
from ldm_privacy.registry import nearest_name
from ldm_privacy.runs.folder import check_writable

USAGE = """ldm-privacy frontier sweeps/digits_beta [out=FOLDER]
                                       AUROC against quality: what a sweep has trained so far
ldm-privacy frontier plain=runs/a,runs/b whitened=runs/c,runs/d [baseline=plain] [out=FOLDER]
                                       the same of runs that are named, a setting each; the baseline is the first by default"""


def frontier(arguments: list[str]) -> int:
    """Write and print the frontier of a sweep, or of runs that are named; returns the exit code."""
    if not arguments or {"-h", "--help"} & {*arguments}:
        tell(USAGE)
        return 0
    words, rest = dict[str, str](), list[str]()
    for item in arguments:
        key, is_pair, value = item.partition("=")
        if is_pair and key in ("out", "baseline"):
            words[key] = value
        else:
            rest.append(item)
    is_sweep = len(rest) == 1 and (Path(rest[0]).exists() or "=" not in rest[0])
    out = Path(words.get("out", rest[0] if is_sweep else "frontier"))
    if is_sweep:
        sweep, trials = read_folder(Path(rest[0]))
        name, cells = sweep.name, cells_of(sweep, Path(rest[0]), trials)
    else:
        name, cells = out.absolute().name, _named(rest)
    if (baseline := words.get("baseline")) is not None:
        if baseline not in cells:
            there = f"{nearest_name(baseline, list(cells))} There are: {', '.join(cells)}."
            raise UserError(f"baseline: there is no '{baseline}'.{there}")
        cells = {label: replace(cell, baseline=label == baseline) for label, cell in cells.items()}
    check_writable(out, "out")
    with waiting(LOADING):
        from ldm_privacy.recipes.frontier.frontier import write_frontier

    write_frontier(name, cells, out, shown=True)
    return 0


def _named(items: Sequence[str]) -> dict[str, Cell]:
    """Settings whose runs are named, the first of them the baseline."""
    cells: dict[str, Cell] = {}
    for item in items:
        label, is_pair, paths = item.partition("=")
        if not is_pair or not label or not paths:
            raise UserError(f"'{item}': name runs as label=run,run, or a sweep's folder alone.")
        if label in cells:
            raise UserError(f"'{label}' stands twice; name all runs of a setting together: {label}=run,run.")
        cells[label] = Cell(label, baseline=not cells, runs=tuple(Path(path) for path in paths.split(",") if path))
        for path in cells[label].runs:
            if not (path / "config.yaml").is_file():
                raise UserError(f"{path}: no run: it has no config.yaml. Name a folder like runs/digits.")
    return cells
