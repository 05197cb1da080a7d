"""Weights & Biases: never asks a question, and a run never dies of it."""

import json
import logging
import netrc
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, cast

from lightning.pytorch.loggers import Logger, WandbLogger

from ldm_privacy.commands import command
from ldm_privacy.errors import reason_of
from ldm_privacy.registry import LOGGERS
from ldm_privacy.runs.series import SeriesFile

log = logging.getLogger("ldm_privacy")

AXES = {"autoencoder/epoch": "_codec_epoch", "epoch": "_epoch"}
"""Names of the axes in W&B: no viewer makes a chart of what begins with an underscore."""
STAGES = {"autoencoder": "autoencoder/epoch", "denoiser": "epoch"}
PLACE = "_place"
"""A number of each row that grows from row to row, and is the same when a resumed run writes the row again."""


class RunLogger(WandbLogger):
    """Lightning's, with the few charts that a person watches, pictures, a summary and the evaluation.

    What is watched says each `Look`; it goes on charts under its short names, the newest value of everything into a table.

    Args:
        run: Of W&B.
        folder: The run's; wandb.json in it holds the run's id, and which series are on charts.
        is_full: Every series goes on a chart, under its own name.
        is_resumed: `go_on` will be called first.
    """

    def __init__(self, run: Any, folder: Path, *, is_full: bool = False, is_resumed: bool = False):
        super().__init__(experiment=run, save_dir=folder)
        self.folder, self.is_full, self.is_resumed = folder, is_full, is_resumed
        stored = _stored(folder) if is_resumed else {}
        self.charts: dict[str, str] = stored.get("charts", {})
        """Series -> chart."""
        self.is_partly_online = stored.get("online", False) or not run.offline
        self.newest: dict[str, list[str | float]] = {}
        """Series -> a row of the table."""
        self.defined: set[str] = set()
        self.step, self.count, self.known = (0, 0), 0, -1
        for axis in AXES.values():
            run.define_metric(axis, hidden=True, summary="none")
        run.define_metric(PLACE, hidden=True)
        for name in ("attack/*", "pictures/*", "evaluation/*"):
            run.define_metric(name, step_metric=AXES["epoch"], summary="none")
        self._store()

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Series of a stage itself: `train/` and `train_codec/`."""
        axis = next((each for each in AXES if each in metrics), "epoch")
        series = {name: value for name, value in metrics.items() if name not in AXES}
        section = "train" if axis == "epoch" else "train_codec"
        self._remember(series, metrics.get(axis, 0))
        charts = {f"{section}/{name.rpartition('/')[2].removeprefix('train_')}": name for name in series}
        self._log(series, charts, axis, metrics.get(axis, 0), step)

    def log_look(self, series: Mapping[str, float], charts: Mapping[str, str], *, epoch: float, step: int) -> None:
        """What watchers saw: the charts, and all of it in the table."""
        from ldm_privacy.runs.wandb_table import Table

        self._remember(series, epoch)
        table = Table(["series", "value", "epoch"], list(self.newest.values()))
        self._log(series, charts, "epoch", epoch, step, more={"tables/newest": table})

    def log_curves(self, curves: Any, epoch: int) -> None:
        """All masks of an attack as one chart."""
        import wandb

        self._row({f"attack/{curves.attack}": wandb.Plotly(curves.plotly())}, "epoch", epoch)

    def log_picture(self, name: str, picture: Any, epoch: int) -> None:
        """Log a figure or an array of pixels at that epoch."""
        import wandb

        self._row({name: wandb.Image(picture, caption=f"epoch {epoch}")}, "epoch", epoch)

    def log_summary(self, values: dict[str, Any]) -> None:
        """Put them into the run's summary."""
        self.experiment.summary.update(values)

    def log_evaluation(self, evaluation: Any, folder: Path) -> None:
        """Tables, ROC, report, verdict and artifact; see `log_evaluation` of `wandb_evaluation.py`."""
        from ldm_privacy.runs.wandb_evaluation import log_evaluation

        log_evaluation(self.experiment, evaluation, folder, axis=AXES["epoch"])

    def go_on(self, file: SeriesFile) -> None:
        """Write the curves up to the checkpoint again, unless W&B has them: then rows that it has are left out.

        Written again, they are in the newest run file, which is then the whole run: those before are put into `superseded/`.
        Of a run that was online before and is not now nobody knows what W&B has: its earlier curves stay where they are.
        """
        if not self.is_resumed:
            return
        self.is_resumed = False
        self.known = self.experiment.summary.get(PLACE, -1)
        is_written_again = self.known < 0 and not (self.is_partly_online and self.experiment.offline)
        for stage, epoch, series in file.rows():
            self._remember(series, epoch)
            if is_written_again:
                shown = {self.charts[name]: value for name, value in series.items() if name in self.charts}
                self._define(shown, STAGES[stage])
                self.experiment.log({**shown, AXES[STAGES[stage]]: epoch})
        mine = Path(self.experiment.dir).parent
        for before in mine.parent.glob(f"offline-run-*-{self.experiment.id}") if is_written_again else ():
            if before.name != mine.name:
                with suppress(OSError):  # the curves are whole with it there, too
                    (mine.parent / "superseded").mkdir(exist_ok=True)
                    before.rename(mine.parent / "superseded" / before.name)

    def commands(self) -> dict[str, str]:
        """How to look at the curves, and how to send what was kept offline."""
        if not self.experiment.offline:
            return {command("wandb", "leet", self.experiment.url): "the curves in the terminal"}
        return {
            command("wandb", "leet", self.folder / "wandb"): "the curves in the terminal",
            sync_command(self.experiment, self.folder): "send them to W&B",
        }

    def _log(
        self,
        series: Mapping[str, float],
        charts: Mapping[str, str],
        axis: str,
        epoch: float,
        step: int | None,
        more: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """A row with the charts; in full detail with every series under its own name."""
        stage = list(AXES).index(axis), step or 0
        if stage != self.step:
            self.step, self.count = stage, 0
        shown = {name: name for name in series} if self.is_full else charts
        self._define(shown, axis)
        new = {name: chart for chart, name in shown.items() if self.charts.get(name) != chart}
        if new:
            self.charts |= new
            self._store()
        self._row({**{chart: series[name] for chart, name in shown.items()}, **more}, axis, epoch)

    def _row(self, values: Mapping[str, Any], axis: str, epoch: float) -> None:
        (stage, step), self.count = self.step, self.count + 1
        place = (stage * 10**12 + step) * 1000 + self.count
        if place > self.known:
            self.experiment.log({**values, AXES[axis]: epoch, PLACE: place})

    def _define(self, charts: Iterable[str], axis: str) -> None:
        """Give each new chart its axis; by its whole name, as viewers differ in which pattern wins."""
        for chart in charts:
            if chart not in self.defined:
                self.experiment.define_metric(chart, step_metric=AXES[axis])
                self.defined.add(chart)

    def _remember(self, series: Mapping[str, float], epoch: float) -> None:
        self.newest |= {name: [name, float(value), epoch] for name, value in series.items()}

    def _store(self) -> None:
        temporary = self.folder / "wandb.tmp"
        kept = {"id": self.experiment.id, "online": self.is_partly_online, "charts": self.charts}
        temporary.write_text(json.dumps(kept, indent=1))
        os.replace(temporary, self.folder / "wandb.json")


@LOGGERS.register("wandb")
def wandb_logger(
    *,
    folder: Path,
    facts: dict[str, Any],
    resume: bool,
    mode: str,
    project: str,
    entity: str | None,
    group: str | None = None,
    detail: str = "watched",
) -> Logger | None:
    """The run's W&B logger; None when mode is "disabled". Never asks a question.

    "auto" is online where an API key is set and offline elsewhere; an online start that fails goes on offline and says so.
    Curves have the epoch as x axis. The W&B id is kept in the run folder, so a resumed run goes on in the same W&B run.
    WANDB_MODE=offline or disabled in the environment wins over a config that asks for more. `facts` are shown as its config.
    """
    environment = os.environ.get("WANDB_MODE", "")
    if "disabled" in (mode, environment):
        return None
    import wandb

    if environment in ("offline", "dryrun"):
        mode = "offline"
    why = "W&B: not logged in (run `wandb login`)" if mode == "online" and not _logged_in() else ""
    online = mode in ("auto", "online") and _logged_in()
    run_id = _stored(folder).get("id") if resume else None
    for attempt in ("online", "offline") if online else ("offline",):
        try:
            run = wandb.init(
                project=project,
                entity=entity,
                group=group,
                name=folder.name if group is None else f"{folder.parent.name} {folder.name}",
                dir=folder,
                id=run_id,
                resume="allow" if attempt == "online" else None,
                mode=cast(Literal["online", "offline"], attempt),
                config=facts,
                settings=wandb.Settings(console="off", quiet=True, silent=True, init_timeout=30),
            )
        except Exception as error:  # whatever wandb raises: a run must not die of its logger
            why = f"W&B can't be used ({reason_of(error)})"
            continue
        if why:
            log.warning("%s, so this run is kept offline. Send it later with:\n%s", why, sync_command(run, folder))
        return RunLogger(run, folder, is_full=detail == "full", is_resumed=resume)
    log.warning("%s: the curves are in metrics.csv", why)
    return None


def sync_command(run: Any, folder: Path) -> str:
    """What sends a run that was kept offline."""
    return command("wandb", "sync", folder / "wandb" / Path(run.dir).parent.name)


def _stored(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / "wandb.json").read_text())
    except (OSError, ValueError):
        return {}


def _logged_in() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False
