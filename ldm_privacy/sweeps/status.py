"""How the trials of a sweep stand: what the journal says, their locks, and how far their runs are."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Literal

from ldm_privacy.runs.folder import RunFolder
from ldm_privacy.runs.lock import holder_of
from ldm_privacy.sweeps.cells import lock_folder, run_folder
from ldm_privacy.sweeps.journal import Trial


@dataclass(frozen=True)
class Standing:
    """One trial.

    Attributes:
        trial: As the journal has it.
        state: "stopped" = it was begun, no process runs it, and it will be gone on with.
        words: Of one that runs: how far it is, where and since when; of one that failed: its last line.
    """

    trial: Trial
    state: Literal["waiting", "running", "stopped", "done", "failed"]
    words: str = ""


def standings(folder: Path, trials: Sequence[Trial]) -> list[Standing]:
    """How each trial of the sweep in that folder stands."""
    return [_standing(folder, trial) for trial in trials]


def told(stands: Sequence[Standing]) -> str:
    """Their number by state: "2 running, 3 done, 7 waiting"."""
    counts = Counter[str](each.state for each in stands)
    names = ("running", "stopped", "done", "failed", "waiting")
    return ", ".join(f"{counts[name]} {name}" for name in names if counts[name])


def time_left(stands: Sequence[Standing], workers: int) -> timedelta | None:
    """About: the median of those that are done for each that isn't, half of it for one that runs; None where none is done."""
    done = [each.trial for each in stands if each.state == "done"]
    lasted = [(trial.ended - trial.began).total_seconds() for trial in done if trial.ended and trial.began]
    if not lasted:
        return None
    left = sum({"running": 0.5, "waiting": 1.0, "stopped": 1.0}.get(each.state, 0.0) for each in stands)
    return timedelta(seconds=round(median(lasted) * left / workers))


def _standing(folder: Path, trial: Trial) -> Standing:
    if trial.state == "waiting":
        return Standing(trial, "waiting")
    if trial.state == "done":
        return Standing(trial, "done")
    if trial.state == "failed":
        return Standing(trial, "failed", trial.why)
    far = _how_far(RunFolder(run_folder(folder, trial.cell, trial.seed)))
    holder = holder_of(lock_folder(folder, trial.cell, trial.seed))
    if holder is None:
        return Standing(trial, "stopped", far)
    return Standing(trial, "running", f"{far}, on {holder.get('host', '?')} since {holder.get('since', '?')}")


def _how_far(run: RunFolder) -> str:
    """("denoiser, epoch 96"), by the last whole row of metrics.csv."""
    try:
        with run.metrics.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - 1000))
            stage, epoch, *_ = file.read().split(b"\n")[-2].decode().split(",")
    except (OSError, IndexError, ValueError):
        return "preparing"
    return f"{stage}, epoch {epoch}" if epoch.isdecimal() else "preparing"
