"""The same workers as jobs of Slurm, through submitit."""

import signal
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import Any

from ldm_privacy.errors import UserError
from ldm_privacy.registry import nearest_name
from ldm_privacy.sweeps.worker import Worker, starter

STOP_SECONDS = 300
"""Before its time is up, a job is told: its trial stores a checkpoint."""
OPTIONS = {
    "partition": "slurm_partition",
    "minutes": "timeout_min",
    "gpus": "gpus_per_node",
    "cpus": "cpus_per_task",
    "gib": "mem_gb",
}
"""Words of --slurm, and what submitit calls them."""


def read_options(text: str) -> dict[str, str | int]:
    """ "partition=gpu,minutes=240,gpus=1" as submitit's parameters.

    Raises UserError for an unknown word, one without a value, or where submitit or Slurm isn't there.
    """
    found: dict[str, str | int] = {}
    for item in filter(None, text.split(",")):
        name, _, value = item.partition("=")
        if name not in OPTIONS:
            raise UserError(f"--slurm: unknown '{name}'.{nearest_name(name, list(OPTIONS))} There are: {', '.join(OPTIONS)}.")
        if not (value if name == "partition" else value.isdecimal() and int(value)):
            raise UserError(f"--slurm: {item}: expected {name}={'NAME' if name == 'partition' else 'NUMBER'}, 1 or more.")
        if name == "minutes" and int(value) * 60 <= STOP_SECONDS:
            raise UserError(f"--slurm: {item}: a job stops {STOP_SECONDS} s before its time is up; give it more.")
        found[OPTIONS[name]] = value if name == "partition" else int(value)
    if find_spec("submitit") is None:
        raise UserError("--slurm: needs submitit: pip install 'ldm-privacy[sweeps]'.")
    if which("sbatch") is None:
        raise UserError("--slurm: there is no sbatch here; call it where jobs are submitted, or start workers by themselves.")
    return found


def submit(folder: Path, module: str, workers: int, parameters: Mapping[str, Any], *, cluster: str = "slurm") -> list[Any]:
    """Submit workers on a sweep; returns submitit's jobs.

    Args:
        folder: Of the sweep, on a disk that the nodes share.
        module: Of a trial's process.
        workers: How many jobs.
        parameters: submitit's.
        cluster: submitit's executor; "local" starts the jobs on this machine.
    """
    import submitit

    # submitit's own limit of times that a job is submitted again is 3.
    executor = submitit.AutoExecutor(folder / "slurm", cluster=cluster, slurm_max_num_timeout=10**6)
    own: dict[str, Any] = {"name": f"sweep-{folder.name}", "timeout_min": 24 * 60}
    if cluster == "slurm":
        own["slurm_signal_delay_s"] = STOP_SECONDS
    executor.update_parameters(**{**own, **parameters})
    jobs = [executor.submit(Job(folder.resolve(), module)) for _ in range(workers)]
    return list(jobs)


@dataclass
class Job:
    """A worker as a job: stopped before its time is up, it is submitted again."""

    folder: Path
    module: str
    _worker: Worker | None = None

    def __call__(self) -> int:
        self._worker = Worker(self.folder, starter(self.folder, self.module))
        return self._worker()

    def checkpoint(self, *arguments: Any) -> Any:
        """What submitit calls when the job is about to end: stop the trial, wait for its checkpoint, ask for another job."""
        import submitit

        if self._worker is not None:
            self._worker.stop(signal.SIGINT)
            self._worker.finish(STOP_SECONDS - 30)
        return submitit.helpers.DelayedSubmission(Job(self.folder, self.module))
