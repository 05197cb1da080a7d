"""Pictures at every audit: memorization curves, generated images, reconstructions, ROC curve, AUROC over timesteps."""

from collections.abc import Callable
from pathlib import Path
from typing import cast

import matplotlib.image
import numpy as np
import wandb
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger
from matplotlib.figure import Figure

from ldm_privacy.audit import AuditReport
from ldm_privacy.report import auroc_by_timestep_figure, image_grid, roc_figure
from ldm_privacy.training.denoiser import DenoiserModule, finished_epochs
from ldm_privacy.types import Image, NoisePredictor


class AuditFigures(Callback):
    """Draws the newest audit, to disk (each file is the last audit's) and to W&B.

    Args:
        folder: Where the PNG files go.
        newest_report: Gives the report that the audit of this epoch just computed.
        curves: Gives the figure of all audits so far.
        generate: A predictor -> generated images, or None for no samples. Runs with the averaged weights.
    """

    def __init__(
        self,
        folder: Path,
        newest_report: Callable[[], AuditReport | None],
        curves: Callable[[], Figure],
        generate: Callable[[NoisePredictor], Image] | None,
    ):
        self.folder = folder
        self.newest_report = newest_report
        self.curves = curves
        self.generate = generate
        self._samples: np.ndarray | None = None

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: object) -> None:
        # Inside the batch hooks the averaged weights are in the network; the first batch is as good as any.
        if self._samples is None and self.generate is not None:
            self._samples = image_grid(self.generate(cast(DenoiserModule, pl_module).predictor))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        report, epoch = self.newest_report(), finished_epochs(cast(DenoiserModule, pl_module))
        if self._samples is not None:
            self._show(trainer, "samples", self._samples, epoch)
            self._samples = None
        if report is not None:
            self._show(trainer, "memorization", self.curves(), epoch)
            self._show(trainer, "roc", roc_figure(report, title=f"ROC after epoch {epoch}"), epoch)
            title = f"AUROC over timesteps after epoch {epoch}"
            self._show(trainer, "auroc_by_timestep", auroc_by_timestep_figure(report, title=title), epoch)

    def _show(self, trainer: Trainer, name: str, drawn: np.ndarray | Figure, epoch: int) -> None:
        path = self.folder / f"{name}.png"
        self.save(path, drawn)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                picture = wandb.Image(str(path), caption=f"epoch {epoch}")
                logger.experiment.log({f"pictures/{name}": picture, "epoch": epoch})

    @staticmethod
    def save(path: Path, picture: np.ndarray | Figure) -> None:
        """Write a figure, or an array of pixels, as PNG."""
        if isinstance(picture, Figure):
            picture.savefig(path, dpi=110)
            return
        # Pixels, not smooth blurs: small images are shown several times their size.
        scale = max(1, 512 // max(picture.shape[:2]))
        matplotlib.image.imsave(path, picture.repeat(scale, 0).repeat(scale, 1))
