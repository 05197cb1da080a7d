"""The two stages of a run, each with its callbacks."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import Logger, WandbLogger
from matplotlib.figure import Figure

from callbacks.audit import MemorizationAudit
from callbacks.checkpoints import RunCheckpoint
from callbacks.ema import AveragedWeights
from callbacks.images import AuditFigures, show_picture
from callbacks.nonfinite import StopOnNonFiniteLoss
from callbacks.progress import ProgressBar
from ldm_privacy.assemble import Experiment
from ldm_privacy.audit import AuditReport, SampleGeometry
from ldm_privacy.config import Composed
from ldm_privacy.metrics import auroc_interval
from ldm_privacy.models import pretrained_autoencoder, save_autoencoder
from ldm_privacy.models.latent_space import LatentSpace
from ldm_privacy.onset import OnsetDetector
from ldm_privacy.report import (
    audit_legend,
    audit_line,
    auroc_by_timestep_figure,
    geometry_figures,
    geometry_series,
    image_grid,
    memorization_figure,
    quartile_figures,
    quartile_series,
    roc_figure,
)
from ldm_privacy.report.terminal import console
from ldm_privacy.training.checkpoint import epochs_in, load_checkpoint
from ldm_privacy.training.loggers import TidyLogger
from ldm_privacy.training.run_folder import RunFolder
from ldm_privacy.training.sampling import generate_images
from ldm_privacy.types import AuditBatch


@dataclass
class Stages:
    """Runs stage 1 and stage 2 of one run, going on where its folder says that it stopped.

    Args:
        experiment: Builds the objects.
        composed: The config, as it is stored in checkpoints.
        run: The folder.
        tidy: The logger of metrics.csv, which is cut back to a checkpoint.
        wandb: The W&B logger, if any.
    """

    experiment: Experiment
    composed: Composed
    run: RunFolder
    tidy: TidyLogger
    wandb: WandbLogger | None

    def autoencoder(self) -> AutoencoderKL:
        """Stage 1: train (or load) the autoencoder; from then on it lies in the run folder as a diffusers folder."""
        config, run = self.experiment.config, self.run
        if run.autoencoder.is_dir():
            return pretrained_autoencoder(
                path=str(run.autoencoder), image_channels=config.data.channels, resolution=config.data.resolution
            )
        if config.autoencoder.max_epochs == 0:
            autoencoder = self.experiment.build_autoencoder()
        else:
            module = self.experiment.autoencoder_module()
            resumed = self._resume_point(run.autoencoder_last, "autoencoder")
            bar = ProgressBar("autoencoder", console)
            callbacks: list[Callback] = [
                bar,
                StopOnNonFiniteLoss(run.autoencoder_last, "autoencoder.learning_rate"),
                RunCheckpoint(
                    run.autoencoder_last,
                    self.experiment.record("autoencoder", self.composed.to_yaml()),
                    every_n_minutes=config.trainer.checkpoint_every_n_minutes,
                    is_due=lambda epoch: epoch == config.autoencoder.max_epochs,
                    say=bar.say,
                ),
            ]
            trainer = self._trainer(config.autoencoder.max_epochs, callbacks, num_sanity_val_steps=0)
            trainer.fit(module, ckpt_path=resumed, weights_only=True)
            loss = module.epoch_means.get("autoencoder/train_reconstruction")
            if loss is not None:
                console.print(f"Autoencoder trained: reconstruction loss {loss:.4f}.", highlight=False)
            autoencoder = module.autoencoder.cpu()
        temporary = run.autoencoder.with_name("autoencoder.tmp")
        save_autoencoder(autoencoder, temporary)
        temporary.rename(run.autoencoder)
        return autoencoder

    def denoiser(self, autoencoder: AutoencoderKL) -> MemorizationAudit:
        """Stage 2: train the denoiser with its audits; returns the callback that holds the last audit."""
        config, run, experiment = self.experiment.config, self.run, self.experiment
        scheduler = experiment.scheduler()
        space = experiment.latent_space(autoencoder)
        audited = experiment.audited(space)
        shape = tuple(audited.latent.shape[1:])
        console.print(f"Latents {shape}, normalisation: {space.normalisation}.", highlight=False, markup=False)
        geometry = experiment.geometry(space, audited, run.influence)
        bar = ProgressBar("denoiser", console)

        def on_report(report: AuditReport, epoch: int) -> None:
            if epoch == 0:
                bar.say(audit_legend(config.audit.masks))
            bar.say(audit_line(report, epoch, width=len(str(config.trainer.max_epochs))))
            self._log({**quartile_series(report, geometry), **report.coefficients}, epoch)

        def draw(report: AuditReport, epoch: int) -> dict[str, Figure]:
            if not config.trainer.figures:
                return {}
            curves = self.tidy.read("denoiser")
            epoch_of_onset = audit.onset.onset_epoch
            onset = None if epoch_of_onset is None else (audit.onset_key, epoch_of_onset)
            return {
                "memorization": memorization_figure(curves, audit.audit.keys, onset),
                "roc": roc_figure(report, title=f"ROC after epoch {epoch}"),
                "auroc_by_timestep": auroc_by_timestep_figure(report, title=f"AUROC over timesteps after epoch {epoch}"),
                **quartile_figures(report, geometry),
            }

        audit = MemorizationAudit(
            experiment.audit(geometry),
            config.audit.every_n_epochs,
            OnsetDetector(config.audit.onset.num_consecutive, config.audit.confidence),
            experiment.onset_key,
            on_report,
        )
        generate = None
        if config.trainer.num_sample_images:
            generate = partial(
                generate_images,
                scheduler=scheduler,
                latent_space=space,
                latent_shape=shape,
                num_images=config.trainer.num_sample_images,
                num_steps=config.trainer.num_sampling_steps,
                seed=config.seed,
            )
        resumed = self._resume_point(run.last, "denoiser")
        if resumed is None:
            self._log_autoencoder_baseline(space)
            self._log(geometry_series(geometry, audited), 0)
            if config.trainer.figures:
                self._show_geometry(geometry, audited, space)
        callbacks: list[Callback] = [bar, StopOnNonFiniteLoss(run.last, "denoiser.learning_rate")]
        if config.denoiser.ema_decay is not None:
            callbacks.append(AveragedWeights(config.denoiser.ema_decay))
        callbacks += [
            audit,
            AuditFigures(run.figures, lambda: audit.report, draw, generate),
            RunCheckpoint(
                run.last,
                experiment.record("denoiser", self.composed.to_yaml(), space),
                every_n_minutes=config.trainer.checkpoint_every_n_minutes,
                is_due=lambda epoch: audit.audited_epoch == epoch,
                before_onset=run.before_onset,
                is_before_onset=audit.is_before_onset,
                say=bar.say,
            ),
        ]
        module = experiment.denoiser_module(space, audited)
        trainer = self._trainer(config.trainer.max_epochs, callbacks, num_sanity_val_steps=0 if resumed else -1)
        trainer.fit(module, ckpt_path=resumed, weights_only=True)
        if self.wandb is not None:
            self.wandb.experiment.summary.update(audit.summary())
        return audit

    def _trainer(self, max_epochs: int, callbacks: list[Callback], *, num_sanity_val_steps: int) -> Trainer:
        config = self.experiment.config.trainer
        _ = self.experiment.device  # an accelerator that isn't there is refused before Lightning looks for it
        return Trainer(
            max_epochs=max_epochs,
            accelerator=config.accelerator,
            devices=1,
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

    def _resume_point(self, path: Any, stage: str) -> Any:
        """The checkpoint to go on from, or None; metrics.csv is cut back to it."""
        if not path.exists():
            self.tidy.cut_back(stage, -1)
            return None
        checkpoint = load_checkpoint(path, stage=stage)
        epoch = epochs_in(checkpoint)
        self.tidy.cut_back(stage, epoch)
        console.print(f"Going on with the {stage} after epoch {epoch}.", highlight=False)
        return path

    def _log_autoencoder_baseline(self, space: LatentSpace) -> None:
        """What the autoencoder gives away without any denoiser, and its reconstructions."""
        experiment = self.experiment
        score = -experiment.reconstruction_error(space)
        is_member = torch.isin(experiment.audited_index, experiment.data.split.member_index)
        group = experiment.data.groups(experiment.audited_index)
        leak = auroc_interval(score, is_member, confidence=experiment.config.audit.confidence, group=group)
        series = {
            "baseline/reconstruction/members": float(-score[is_member].mean()),
            "baseline/reconstruction/heldout": float(-score[~is_member].mean()),
            "baseline/reconstruction/auroc": leak.value,
            "baseline/reconstruction/auroc_lower": leak.lower,
            "baseline/reconstruction/auroc_upper": leak.upper,
        }
        self._log(series, 0)
        console.print(f"Autoencoder alone (reconstruction error): AUROC {leak}.", highlight=False)
        if count := experiment.config.trainer.num_sample_images:
            with torch.no_grad():
                image = experiment.data.images(experiment.audited_index[:count]).to(space.device)
                both = torch.stack([image, space.decode(space.encode(image))], 1).flatten(0, 1)
            self._show("reconstructions", image_grid(both, columns=8))

    def _show_geometry(self, geometry: SampleGeometry, audited: AuditBatch, space: LatentSpace) -> None:
        experiment = self.experiment
        masks, images = experiment.masks(), experiment.data.images
        figures = geometry_figures(geometry, audited, masks, space.decode, images, seed=experiment.config.seed)
        for name, figure in figures.items():
            self._show(name, figure)

    @property
    def _loggers(self) -> list[Logger]:
        return [self.tidy, *([self.wandb] if self.wandb is not None else [])]

    def _log(self, series: dict[str, float], epoch: int) -> None:
        for logger in self._loggers:
            logger.log_metrics({**series, "epoch": epoch})

    def _show(self, name: str, picture: np.ndarray | Figure) -> None:
        show_picture(self._loggers, self.run.figures, name, picture, epoch=0)
