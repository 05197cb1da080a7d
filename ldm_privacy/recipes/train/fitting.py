"""What both stages need to run in a run's folder: a trainer, the point to go on from, curves and pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import Logger

from ldm_privacy.callbacks.progress import in_lines
from ldm_privacy.config.schema import AutoencoderConfig, Config, DenoiserConfig, TrainerConfig
from ldm_privacy.device import OutOfMemory, device_of, explain_out_of_memory
from ldm_privacy.processes import is_main, world_size
from ldm_privacy.recipes.launch import cluster_plugins
from ldm_privacy.recipes.terminal import console
from ldm_privacy.report.figures.mask_curves import MaskCurves
from ldm_privacy.runs.folder import RunFolder
from ldm_privacy.runs.history import ScoreHistory
from ldm_privacy.runs.looks import log_look
from ldm_privacy.runs.pictures import log_picture, save_picture
from ldm_privacy.runs.series import SeriesFile
from ldm_privacy.targets.record import Checkpoint
from ldm_privacy.training.stepwise import Steps, StepwiseModule

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Fitting:
    """Fits a stage in a run's folder.

    Args:
        config: The trainer's section.
        run: The folder.
        loggers: In the main process; none in the others.
        history: Where the scores of the audits are kept.
    """

    config: TrainerConfig
    run: RunFolder
    loggers: list[Logger]
    history: ScoreHistory

    def resume_point(self, path: Path, stage: str) -> Path | None:
        """The checkpoint to go on from, or None; metrics.csv and the scores of the audits are cut back to it."""
        epoch = Checkpoint.read(path, stage=stage).epoch if path.exists() else -1
        if is_main():
            self.history.cut_back(epoch if stage == "denoiser" else -1)
            file = SeriesFile(self.run.metrics)
            file.cut_back(stage, epoch)
            for logger in self.loggers:
                if hasattr(logger, "go_on"):
                    logger.go_on(file)
        if epoch < 0:
            return None
        console.print(f"Going on with the {stage} after epoch {epoch}.", highlight=False)
        return path

    def fit(
        self, module: StepwiseModule, callbacks: Sequence[Callback], *, max_epochs: int, resumed: Path | None, last: Path
    ) -> None:
        """Train to `max_epochs`, from the checkpoint `resumed` where there is one; `last` is named where memory runs out."""
        config = self.config
        device = device_of(config.accelerator, tf32=config.tf32)
        trainer = Trainer(
            max_epochs=max_epochs,
            accelerator={"cuda": "gpu"}.get(device.type, device.type),
            devices=config.devices,
            num_nodes=config.num_nodes,
            strategy="auto" if world_size() == 1 else "ddp",
            plugins=cluster_plugins(),
            use_distributed_sampler=False,
            precision=config.precision,
            gradient_clip_val=config.gradient_clip,
            callbacks=list(callbacks) if console.is_terminal else [in_lines(each) for each in callbacks],
            logger=self.loggers,
            num_sanity_val_steps=0,
            enable_model_summary=False,
            enable_progress_bar=console.is_terminal,
            enable_checkpointing=True,
            default_root_dir=self.run.path,
        )

        def kept() -> str:
            return f" The last checkpoint is {last}." if last.exists() else " There is no checkpoint yet."

        try:
            with explain_out_of_memory(module.memory_advice):
                trainer.fit(module, ckpt_path=resumed, weights_only=True)
        except OutOfMemory as error:
            raise OutOfMemory(f"{error}{kept()}") from error

    def show(self, name: str, picture: "np.ndarray | Figure", epoch: int = 0) -> None:
        """Store a picture in the run's figures, and log it."""
        save_picture(self.run.figures, name, picture)
        log_picture(self.loggers, name, picture, epoch=epoch)

    def show_curves(self, curves: MaskCurves, epoch: int) -> None:
        """As `show`; loggers that have a method `log_curves` get the curves themselves."""
        figure = curves.figure()
        save_picture(self.run.figures, curves.name, figure)
        for logger in self.loggers:
            if hasattr(logger, "log_curves"):
                logger.log_curves(curves, epoch)
            else:
                log_picture([logger], curves.name, figure, epoch=epoch)

    def log(self, series: dict[str, float]) -> None:
        """Write what is there before the denoiser's first step to every logger; it makes no curves."""
        log_look(self.loggers, series, {}, epoch=0, step=0)

    def summarise(self, values: dict[str, Any]) -> None:
        """Give them to every logger that has a method `log_summary`."""
        for logger in self.loggers:
            if hasattr(logger, "log_summary"):
                logger.log_summary(values)


def steps_of(config: Config, stage: AutoencoderConfig | DenoiserConfig, *, warmup_steps: int = 0) -> Steps:
    """How the steps of a stage are made."""
    return {
        "batch_size": stage.batch_size,
        "learning_rate": stage.learning_rate,
        "weight_decay": stage.weight_decay,
        "seed": config.seed,
        "warmup_steps": warmup_steps,
        "compile_mode": config.trainer.compile,
        "channels_last": config.trainer.channels_last,
    }
