"""Pictures of audits: generated images at each, the curves over the epochs at the last."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import matplotlib.image
import numpy as np
import wandb
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger, WandbLogger
from matplotlib.figure import Figure

from ldm_privacy.audit import AuditReport
from ldm_privacy.report import image_grid
from ldm_privacy.training.denoiser import DenoiserModule, finished_epochs
from ldm_privacy.types import Image, NoisePredictor


class AuditFigures(Callback):
    """Generated images at every audit and the curves at the last one, to disk and to W&B.

    Args:
        folder: Where the PNG files go.
        newest_report: Gives the report that the audit of this epoch just computed.
        draw: (report, epoch) -> figures by name; called after the last audit of the training (drawing takes seconds).
        generate: A predictor -> generated images, or None for no samples. Runs with the averaged weights.
    """

    def __init__(
        self,
        folder: Path,
        newest_report: Callable[[], AuditReport | None],
        draw: Callable[[AuditReport, int], dict[str, Figure]],
        generate: Callable[[NoisePredictor], Image] | None,
    ):
        self.folder = folder
        self.newest_report = newest_report
        self.draw = draw
        self.generate = generate
        self._samples: np.ndarray | None = None

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: object) -> None:
        # Inside the batch hooks the averaged weights are in the network; the first batch is as good as any.
        if self._samples is None and self.generate is not None:
            self._samples = image_grid(self.generate(cast(DenoiserModule, pl_module).predictor))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        report, epoch = self.newest_report(), finished_epochs(cast(DenoiserModule, pl_module))
        if self._samples is not None:
            show_picture(trainer.loggers, self.folder, "samples", self._samples, epoch=epoch)
            self._samples = None
        if report is not None and (epoch == trainer.max_epochs or trainer.should_stop):
            for name, figure in self.draw(report, epoch).items():
                show_picture(trainer.loggers, self.folder, name, figure, epoch=epoch)


def show_picture(loggers: Sequence[Logger], folder: Path, name: str, picture: np.ndarray | Figure, *, epoch: int) -> None:
    """Write a figure or an array of pixels as `name`.png, and log it to W&B where there is such a logger."""
    path = folder / f"{name}.png"
    if isinstance(picture, Figure):
        picture.savefig(path, dpi=110)
    else:
        # Pixels, not smooth blurs: small images are shown several times their size.
        scale = max(1, 512 // max(picture.shape[:2]))
        matplotlib.image.imsave(path, picture.repeat(scale, 0).repeat(scale, 1))
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            image = wandb.Image(str(path), caption=f"epoch {epoch}")
            logger.experiment.log({f"pictures/{name}": image, "epoch": epoch})
