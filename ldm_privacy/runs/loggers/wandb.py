"""Weights & Biases: never asks a question, and a run never dies of it."""

import logging
import netrc
import os
from pathlib import Path
from typing import Any, Literal, cast

from lightning.pytorch.loggers import Logger, WandbLogger

from ldm_privacy.registry import LOGGERS

log = logging.getLogger("ldm_privacy")


class RunLogger(WandbLogger):
    """Lightning's, with pictures, a summary and the evaluation."""

    def log_picture(self, name: str, picture: Any, epoch: int) -> None:
        """Log a figure or an array of pixels at that epoch."""
        import wandb

        self.experiment.log({name: wandb.Image(picture, caption=f"epoch {epoch}"), "epoch": epoch})

    def log_summary(self, values: dict[str, Any]) -> None:
        """Put them into the run's summary."""
        self.experiment.summary.update(values)

    def log_evaluation(self, evaluation: Any, folder: Path) -> None:
        """Tables, ROC, report and artifact; see `log_evaluation` of `wandb_evaluation.py`."""
        from ldm_privacy.runs.wandb_evaluation import log_evaluation

        log_evaluation(self.experiment, evaluation, folder)


@LOGGERS.register("wandb")
def wandb_logger(
    *, folder: Path, facts: dict[str, Any], resume: bool, mode: str, project: str, entity: str | None
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
                config=facts,
                settings=wandb.Settings(console="off", quiet=True, silent=True, init_timeout=30),
            )
        except Exception as error:  # whatever wandb raises: a run must not die of its logger
            log.warning("W&B can't be used (%s): the curves are in metrics.csv", str(error).splitlines()[0])
            continue
        for axis in ("epoch", "autoencoder/epoch", "trainer/global_step"):
            run.define_metric(axis, hidden=True)
        run.define_metric("*", step_metric="epoch")
        run.define_metric("autoencoder/*", step_metric="autoencoder/epoch")
        id_file.write_text(run.id)
        return RunLogger(experiment=run, save_dir=folder)
    return None


def _logged_in() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False
