"""A sweep's file and its folder, as every command reads them. Nothing heavy is imported here."""

from collections.abc import Sequence
from pathlib import Path

from ldm_privacy.config.compose import read_yaml
from ldm_privacy.errors import UserError
from ldm_privacy.evidence.cell import Cell
from ldm_privacy.sweeps.cells import Sweep, read_sweep, run_folder
from ldm_privacy.sweeps.journal import Journal, Trial


def read_file(file: Path, overrides: Sequence[str] = ()) -> Sweep:
    """The sweep of a file, `overrides` after the file's own. Raises UserError as `read_sweep`, with the file's name."""
    tree = read_yaml(file)
    try:
        return read_sweep(tree, file.stem, overrides=overrides)
    except UserError as error:
        raise UserError(f"{file}: {error}") from None


def read_folder(folder: Path) -> tuple[Sweep, list[Trial]]:
    """The sweep that lies in a folder, and its trials. Raises UserError where none lies there."""
    file = folder / "sweep.yaml"
    if not file.is_file():
        raise UserError(
            f"{folder}: no sweep: it has no sweep.yaml. Name a folder like sweeps/digits_beta, or runs as label=run,run."
        )
    return read_file(file), Journal(folder).trials() if (folder / "journal.log").is_file() else []


def cells_of(sweep: Sweep, folder: Path, trials: Sequence[Trial]) -> dict[str, Cell]:
    """The cells of the sweep in that folder with their runs, begun or not; trials that failed are none, and say why."""
    cells = {}
    for label, overrides in sweep.cells.items():
        failed = {each.seed: each.why.rstrip(".") for each in trials if each.cell == label and each.state == "failed"}
        runs = [run_folder(folder, label, seed) for seed in sweep.seeds if seed not in failed]
        why = [f"{label}, seed {seed}, failed: {reason}" for seed, reason in failed.items()]
        cells[label] = Cell(label, overrides, label == sweep.baseline, runs, why)
    return cells
