"""Where series go: metrics.csv, which is the authority, and Weights & Biases."""

import csv
import logging
import netrc
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, cast

import wandb
from lightning.pytorch.loggers import Logger, WandbLogger

log = logging.getLogger("ldm_privacy")

COLUMNS = ("stage", "epoch", "series", "value")
AXES = {"autoencoder/epoch": "autoencoder", "epoch": "denoiser"}


class TidyLogger(Logger):
    """Writes `stage,epoch,series,value` rows, a row per number, flushed at once.

    Args:
        path: The CSV file; rows are appended.
    """

    def __init__(self, path: Path):
        super().__init__()
        self.path = path
        if not path.exists():
            self._write([], header=True)

    @property
    def name(self) -> str:
        return "metrics"

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: config.yaml lies beside the file."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append every series of `metrics`, which must hold one of the epoch axes."""
        axis = next((axis for axis in AXES if axis in metrics), None)
        if axis is not None:
            epoch = int(metrics[axis])
            self._write([(AXES[axis], epoch, name, repr(float(value))) for name, value in metrics.items() if name != axis])

    def read(self, stage: str) -> dict[tuple[int, str], float]:
        """All rows of a stage: (epoch, series) -> value."""
        with self.path.open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["stage"] == stage]
        return {(int(row["epoch"]), row["series"]): float(row["value"]) for row in rows}

    def cut_back(self, stage: str, epoch: int) -> None:
        """Drop the rows of `stage` after `epoch`, and of stages after it: what a resumed run will write again."""
        stages = list(AXES.values())
        place = stages.index(stage)

        def stays(row: dict[str, str]) -> bool:
            there = stages.index(row["stage"])
            return there < place or (there == place and int(row["epoch"]) <= epoch)

        with self.path.open(newline="") as file:
            # A row that a kill cut short has no value; it is of an epoch that is written again.
            rows = [row for row in csv.DictReader(file) if row["value"] and stays(row)]
        temporary = self.path.with_suffix(".tmp")
        with temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
        os.replace(temporary, self.path)

    def _write(self, rows: Iterable[tuple[str, int, str, str]], *, header: bool = False) -> None:
        with self.path.open("a", newline="") as file:
            writer = csv.writer(file)
            if header:
                writer.writerow(COLUMNS)
            writer.writerows(rows)


def wandb_logger(
    folder: Path, *, mode: str, project: str, entity: str | None, config: dict[str, Any], resume: bool
) -> WandbLogger | None:
    """The run's W&B logger; None when mode is "disabled". Never asks a question.

    "auto" is online where an API key is set and offline elsewhere; an online start that fails goes on offline and says so.
    Curves have the epoch as x axis. The W&B id is kept in the run folder, so a resumed run goes on in the same W&B run.
    WANDB_MODE=offline or disabled in the environment wins over a config that asks for more.
    """
    environment = os.environ.get("WANDB_MODE", "")
    if "disabled" in (mode, environment):
        return None
    if environment in ("offline", "dryrun"):
        mode = "offline"
    if mode == "online" and not _logged_in():
        log.warning("W&B: not logged in (run `wandb login`), so this run is kept offline")
    online = mode in ("auto", "online") and _logged_in()
    id_file = folder / "wandb-id.txt"
    run_id = id_file.read_text().strip() if resume and id_file.exists() else None
    for attempt in ("online", "offline") if online else ("offline",):
        try:
            run = wandb.init(
                project=project,
                entity=entity,
                name=folder.name,
                dir=folder,
                id=run_id,
                resume="allow" if attempt == "online" else None,
                mode=cast(Literal["online", "offline"], attempt),
                config=config,
                settings=wandb.Settings(console="off", quiet=True, silent=True, init_timeout=30),
            )
        except Exception as error:  # whatever wandb raises: a run must not die of its logger
            log.warning("W&B can't be used (%s): the curves are in metrics.csv", str(error).splitlines()[0])
            continue
        run.define_metric("epoch", hidden=True)
        run.define_metric("autoencoder/epoch", hidden=True)
        shown = ("memorization", "denoiser", "generations", "baseline", "geometry", "combined", "pictures")
        for series in (f"{room}/*" for room in shown):
            run.define_metric(series, step_metric="epoch")
        run.define_metric("autoencoder/*", step_metric="autoencoder/epoch")
        id_file.write_text(run.id)
        return WandbLogger(experiment=run, save_dir=folder)
    return None


def _logged_in() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False
