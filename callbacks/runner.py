"""What both stages need to run: a trainer, the point to go on from, loggers and pictures."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import Logger, WandbLogger
from matplotlib.figure import Figure

from callbacks.images import show_picture
from callbacks.progress import ProgressBar
from ldm_privacy.assemble import Experiment
from ldm_privacy.config import Composed
from ldm_privacy.report.terminal import console
from ldm_privacy.training.checkpoint import epochs_in, load_checkpoint
from ldm_privacy.training.device import explain_out_of_memory
from ldm_privacy.training.loggers import TidyLogger
from ldm_privacy.training.processes import cluster_plugins, world_size
from ldm_privacy.training.run_folder import RunFolder
from ldm_privacy.training.stepwise import StepwiseModule


@dataclass
class Runner:
    """Fits one stage after the other in one run folder, going on where the folder says that it stopped.

    Args:
        experiment: Builds the objects.
        composed: The config, as it is stored in checkpoints.
        run: The folder.
        tidy: The logger of metrics.csv, which is cut back to a checkpoint; None in processes that write nothing.
        wandb: The W&B logger, if any.
    """

    experiment: Experiment
    composed: Composed
    run: RunFolder
    tidy: TidyLogger | None
    wandb: WandbLogger | None

    def fit(
        self, module: StepwiseModule, callbacks: list[Callback], *, max_epochs: int, resumed: Path | None, last: Path
    ) -> None:
        """Train to `max_epochs`, from the checkpoint `resumed` where there is one; `last` is named where memory runs out.

        The denoiser is audited before its first step.
        """

        def advice() -> str:
            kept = f"The last checkpoint is {last}." if last.exists() else "There is no checkpoint yet."
            return f"{module.memory_advice()} {kept}"

        audit_first = module.stage == "denoiser" and resumed is None
        trainer = self._trainer(max_epochs, callbacks, num_sanity_val_steps=-1 if audit_first else 0)
        with explain_out_of_memory(advice):
            trainer.fit(module, ckpt_path=resumed, weights_only=True)

    def resume_point(self, path: Path, stage: str) -> Path | None:
        """The checkpoint to go on from, or None; metrics.csv is cut back to it."""
        if not path.exists():
            self._cut_back(stage, -1)
            return None
        epoch = epochs_in(load_checkpoint(path, stage=stage))
        self._cut_back(stage, epoch)
        console.print(f"Going on with the {stage} after epoch {epoch}.", highlight=False)
        return path

    def log(self, series: dict[str, float], epoch: int) -> None:
        """Write series of the denoiser's stage to every logger."""
        for logger in self._loggers:
            logger.log_metrics({**series, "epoch": epoch})

    def show(self, name: str, picture: np.ndarray | Figure, epoch: int = 0) -> None:
        """Store a picture in the run's figures, and log it to W&B."""
        show_picture(self._loggers, self.run.figures, name, picture, epoch=epoch)

    @property
    def _loggers(self) -> list[Logger]:
        return [each for each in (self.tidy, self.wandb) if each is not None]

    def _trainer(self, max_epochs: int, callbacks: list[Callback], *, num_sanity_val_steps: int) -> Trainer:
        config = self.experiment.config.trainer
        _ = self.experiment.device  # an accelerator that isn't there is refused before Lightning looks for it
        return Trainer(
            max_epochs=max_epochs,
            accelerator=config.accelerator,
            devices=config.devices,
            num_nodes=config.num_nodes,
            strategy="auto" if world_size() == 1 else "ddp",
            plugins=cluster_plugins(),
            use_distributed_sampler=False,
            precision=config.precision,
            gradient_clip_val=config.gradient_clip,
            callbacks=[each for each in callbacks if console.is_terminal or not isinstance(each, ProgressBar)],
            logger=self._loggers,
            num_sanity_val_steps=num_sanity_val_steps,
            enable_model_summary=False,
            enable_progress_bar=console.is_terminal,
            enable_checkpointing=True,
            default_root_dir=self.run.path,
        )

    def _cut_back(self, stage: str, epoch: int) -> None:
        if self.tidy is not None:
            self.tidy.cut_back(stage, epoch)
