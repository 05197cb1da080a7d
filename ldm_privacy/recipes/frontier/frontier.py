"""The frontier of a sweep: what its trainings show so far, as a page, a file and a table."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ldm_privacy.commands import command
from ldm_privacy.errors import UserError
from ldm_privacy.evidence.cell import Cell
from ldm_privacy.evidence.frontier import Frontier, baseline_of, check_seeds, frontier_of
from ldm_privacy.evidence.trainings import Training
from ldm_privacy.recipes.frontier.runs import Run, apart, check_compared, common_quality, training_of
from ldm_privacy.recipes.frontier.store import KnownStrongest
from ldm_privacy.recipes.terminal import console, tell
from ldm_privacy.report.frontier import frontier_page, print_frontier
from ldm_privacy.report.frontier_file import write_frontier_csv
from ldm_privacy.report.page.page import write_page
from ldm_privacy.runs.lock import writing
from ldm_privacy.types import Intervals

KNOWN = ".strongest"
"""Folder of the strongest attacks of audits that were read before."""


def read_frontier(cells: Mapping[str, Cell], folder: Path) -> Frontier:
    """What the runs of those cells show so far.

    Args:
        cells: By label; their runs may not have begun, be in training, or have ended.
        folder: Where it is remembered which attack was the strongest of an audit; an audit is read once.

    Raises:
        UserError: No run has an audit, or a quality that all have; two runs have other images or look at quality otherwise; two
            runs of a cell have one seed, runs of a seed different splits, or runs of two seeds the same.
    """
    left_out, trainings = list[str](), dict[str, list[Training]]()
    runs: dict[str, list[Run]] = {}
    for label, cell in cells.items():
        begun = [path for path in cell.runs if (path / "config.yaml").is_file()]
        runs[label] = [Run.open(path) for path in begun]
        if len(begun) < len(cell.runs):
            left_out.append(f"{label}: {len(cell.runs) - len(begun)} of {len(cell.runs)} runs have not begun")
        left_out += cell.failed
    if not any(cell.overrides for cell in cells.values()):  # of runs that are named
        known = apart({label: mine[0].config for label, mine in runs.items() if mine})
        cells = {label: replace(cell, overrides=known.get(label, ())) for label, cell in cells.items()}
    every = [run for mine in runs.values() for run in mine]
    if not any(run.history is not None for run in every):
        raise UserError("no run has an audit yet: wait for the first, or name runs that were audited.")
    quality, intervals = common_quality(every), Intervals()
    check_compared([run for run in every if run.epochs(quality)], quality)
    store = KnownStrongest(folder / KNOWN, intervals)
    for label, mine in runs.items():
        found = [training_of(run, quality, store, intervals) for run in mine]
        left_out += [each for each in found if isinstance(each, str)]
        trainings[label] = [each for each in found if isinstance(each, Training)]
    check_seeds(trainings)
    if not any(trainings.values()):
        raise UserError(f"no run has an audit with {quality}: audit and look at quality in the same epochs.")
    return frontier_of(cells, trainings, quality, intervals=intervals, left_out=left_out)


def write_frontier(name: str, cells: Mapping[str, Cell], folder: Path, *, shown: bool = False) -> tuple[Path, Path]:
    """frontier.html and frontier.csv of what the runs of those cells show so far; returns their paths.

    Args:
        name: Of the sweep.
        cells, folder: See `read_frontier`; so are errors. Files in the folder are replaced.
        shown: Its table and sentences are printed too.
    """
    page, table = folder / "frontier.html", folder / "frontier.csv"
    with writing(folder, wait=True):  # two processes of one sweep end together
        frontier = read_frontier(cells, folder)
        write_frontier_csv(frontier, table)
        write_page(frontier_page(name, frontier, made_by=_made_by(cells, folder)), page)
    if shown:
        print_frontier(frontier, console)
        tell(f"Written to {folder}: {page.name}, {table.name}.\nOpen {page}")
    return page, table


def _made_by(cells: Mapping[str, Cell], folder: Path) -> str:
    """The command that makes it again."""
    if (folder / "sweep.yaml").is_file():
        return command("ldm-privacy", "frontier", folder)
    named = [f"{label}={','.join(map(str, cell.runs))}" for label, cell in cells.items()]
    return command("ldm-privacy", "frontier", *named, f"baseline={baseline_of(cells)}", f"out={folder}")
