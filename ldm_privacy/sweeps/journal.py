"""The journal of a sweep: which trials there are, who took which, how each ended. Any number of processes share it.

It is Optuna's `JournalStorage`, so that `optuna-dashboard journal.log` shows it: one study, one trial for each cell and seed
(one more where a failed trial is tried again; the newest counts). What a process appends is there for all others, and a trial
that has ended can't end again. RUNNING says that somebody took a trial; whether it is being run says its lock alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from filelock import FileLock

from ldm_privacy.errors import UserError

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

STUDY = "sweep"
State = Literal["waiting", "taken", "done", "failed"]


@dataclass(frozen=True)
class Trial:
    """One training of one cell under one seed, as the journal has it.

    Attributes:
        number: In the journal.
        cell, seed: Which.
        state: "taken" = somebody began it and it has not ended.
        numbers: What it ended with.
        why: The last line of one that failed.
        began, ended: When it was taken first, and when it ended.
    """

    number: int
    cell: str
    seed: int
    state: State
    numbers: Mapping[str, float] = field(default_factory=dict)
    why: str = ""
    began: datetime | None = None
    ended: datetime | None = None

    @property
    def is_over(self) -> bool:
        return self.state in ("done", "failed")


class Journal:
    """The journal in a sweep's folder.

    Raises UserError where Optuna isn't installed, or what lies there is no journal.
    """

    def __init__(self, folder: Path):
        check_optuna()
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.path = folder / "journal.log"
        try:
            self._storage = JournalStorage(JournalFileBackend(str(self.path), lock_obj=_Lock(self.path)))  # type: ignore[arg-type]
        except (ValueError, KeyError, AssertionError) as error:
            raise UserError(
                f"{self.path}: is no journal of a sweep ({type(error).__name__}); name another folder, out=."
            ) from None

    @property
    def _study(self) -> int:
        return self._storage.get_study_id_from_name(STUDY)

    @property
    def _has_begun(self) -> bool:
        return any(study.study_name == STUDY for study in self._storage.get_all_studies())

    @property
    def _cells(self) -> dict[str, str]:
        return dict(self._storage.get_study_user_attrs(self._study).get("cells", {}))

    @property
    def name(self) -> str:
        """Of the sweep."""
        return str(self._storage.get_study_user_attrs(self._study)["name"])

    def enqueue(self, name: str, cells: Mapping[str, str], seeds: Sequence[int]) -> int:
        """Add those of cells x seeds that aren't there, all cells of a seed before the next; returns how many were added.

        Whoever calls it holds the sweep's folder.

        Args:
            name: Of the sweep.
            cells: Label -> hash of what decides its trainings.
            seeds: Of each cell.

        Raises:
            UserError: As `check`.
        """
        from optuna.study import StudyDirection
        from optuna.trial import TrialState, create_trial

        self.check(cells, seeds)
        if not self._has_begun:
            self._storage.create_new_study([StudyDirection.MINIMIZE], STUDY)
        if self._cells != cells:
            self._storage.set_study_user_attr(self._study, "name", name)
            self._storage.set_study_user_attr(self._study, "cells", dict(cells))
        there = {(each.cell, each.seed) for each in self.trials()}
        new = [(cell, seed) for seed in seeds for cell in cells if (cell, seed) not in there]
        for cell, seed in new:
            asked = create_trial(state=TrialState.WAITING, user_attrs={"cell": cell, "seed": seed})
            self._storage.create_new_trial(self._study, asked)
        return len(new)

    def check(self, cells: Mapping[str, str], seeds: Sequence[int]) -> None:
        """Raise UserError where it has a cell or a seed that isn't among these, or one of another hash: another sweep's."""
        if not self._has_begun:
            return
        if other := next((label for label, digest in self._cells.items() if cells.get(label) != digest), None):
            self._refuse(f"its cell '{other}' is {'trained otherwise' if other in cells else 'none of this one'}")
        if gone := {trial.seed for trial in self.trials()} - {*seeds}:
            self._refuse(f"this one has no seed {min(gone)}")

    def trials(self) -> list[Trial]:
        """The newest of each cell and seed, in the order in which those were enqueued."""
        found = [_read(each) for each in self._storage.get_all_trials(self._study, deepcopy=False)]
        return list({(each.cell, each.seed): each for each in found}.values())

    def take(self) -> Trial | None:
        """The first that waits, which no other process gets then; None where none waits."""
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        for trial in self.trials():
            try:
                if trial.state == "waiting" and self._storage.set_trial_state_values(self._id(trial), TrialState.RUNNING):
                    return trial
            except UpdateFinishedTrialError:  # another took and ended it in between
                continue
        return None

    def finish(self, trial: Trial, numbers: Mapping[str, float]) -> None:
        """Say that it is done; `numbers` are what it ended with, the first is its value for Optuna."""
        from optuna.trial import TrialState

        self._storage.set_trial_user_attr(self._id(trial), "numbers", dict(numbers))
        value = next(iter(numbers.values()), 0.0)
        self._storage.set_trial_state_values(self._id(trial), TrialState.COMPLETE, [value])

    def fail(self, trial: Trial, why: str) -> None:
        """Say that it failed, and why."""
        from optuna.trial import TrialState

        self._storage.set_trial_user_attr(self._id(trial), "why", why)
        self._storage.set_trial_state_values(self._id(trial), TrialState.FAIL)

    def retry_failed(self) -> int:
        """Enqueue those that failed again; returns how many. Whoever calls it holds the sweep's folder."""
        from optuna.trial import TrialState, create_trial

        failed = [trial for trial in self.trials() if trial.state == "failed"]
        for trial in failed:
            asked = create_trial(state=TrialState.WAITING, user_attrs={"cell": trial.cell, "seed": trial.seed})
            self._storage.create_new_trial(self._study, asked)
        return len(failed)

    def _id(self, trial: Trial) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._study, trial.number)

    def _refuse(self, why: str) -> None:
        raise UserError(f"{self.path}: is the journal of another sweep: {why}. Name another folder, out=FOLDER.")


def check_optuna() -> None:
    """Raise UserError where Optuna isn't installed."""
    from importlib.util import find_spec

    if find_spec("optuna") is None:
        raise UserError("sweep: needs Optuna: pip install 'ldm-privacy[sweeps]'.")


class _Lock:
    """Of the journal's file: the system's, of which a kill leaves nothing behind (Optuna's own would hold for 30 s)."""

    def __init__(self, path: Path):
        self._path, self._lock = path, FileLock(f"{path}.lock", fallback_to_soft=False)

    def acquire(self) -> bool:
        try:
            self._lock.acquire()
        except (OSError, NotImplementedError) as error:
            raise UserError(f"{self._path}: can't be locked ({error}); put the sweep on a disk with locks, out=.") from None
        self._drop_torn_line()
        return True

    def release(self) -> None:
        self._lock.release()

    def _drop_torn_line(self) -> None:
        """What a kill cut short, before another line is written behind it."""
        with self._path.open("rb+") as file:
            content = file.read()
            if not content.endswith(b"\n"):
                file.truncate(content.rfind(b"\n") + 1)


def _read(trial: "FrozenTrial") -> Trial:
    attributes: dict[str, Any] = trial.user_attrs
    names: dict[str, State] = {"WAITING": "waiting", "RUNNING": "taken", "COMPLETE": "done"}
    return Trial(
        trial.number,
        attributes["cell"],
        attributes["seed"],
        names.get(trial.state.name, "failed"),
        attributes.get("numbers", {}),
        attributes.get("why", ""),
        trial.datetime_start,
        trial.datetime_complete,
    )
