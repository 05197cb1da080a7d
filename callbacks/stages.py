"""The two stages of a run, each with its callbacks."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
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
from callbacks.generations import MemorizedGenerations
from callbacks.images import AuditFigures, show_picture
from callbacks.loss_gap import LossGap
from callbacks.nonfinite import StopOnNonFiniteLoss
from callbacks.progress import ProgressBar
from callbacks.stop import StopOnMemorization
from ldm_privacy.assemble import Experiment
from ldm_privacy.audit import AuditReport, SampleGeometry
from ldm_privacy.config import Composed
from ldm_privacy.measure import Evaluation, gather_samples, measure_samples, reconstruction_error
from ldm_privacy.metrics import auroc_interval
from ldm_privacy.models import pretrained_autoencoder, save_autoencoder
from ldm_privacy.models.latent_space import LatentSpace
from ldm_privacy.onset import OnsetDetector
from ldm_privacy.report import (
    audit_legend,
    audit_line,
    geometry_figures,
    geometry_series,
    image_grid,
    memorization_figure,
    quartile_series,
)
from ldm_privacy.report.onset_figure import GENERATIONS, LOSS_GAP, onset_figure
from ldm_privacy.report.tables import generations_sentence, loss_gap_sentence, onset_sentence
from ldm_privacy.report.terminal import console
from ldm_privacy.training.checkpoint import epochs_in, load_checkpoint
from ldm_privacy.training.device import explain_out_of_memory
from ldm_privacy.training.loggers import TidyLogger
from ldm_privacy.training.processes import cluster_plugins, is_main, world_size
from ldm_privacy.training.run_folder import RunFolder
from ldm_privacy.training.sampling import generate_images
from ldm_privacy.training.score_history import ScoreHistory
from ldm_privacy.training.stepwise import StepwiseModule
from ldm_privacy.types import AuditBatch, Image


@dataclass(frozen=True)
class Trained:
    """What stage 2 leaves.

    Attributes:
        evaluation: The last audit; None where nothing was left to train.
        epoch: Of the last audit.
        sentences: Why the training was stopped, if it was, and the onsets.
        curves: Figures over the epochs, by name.
    """

    evaluation: Evaluation | None
    epoch: int
    sentences: list[str]
    curves: dict[str, Figure]


@dataclass
class Stages:
    """Runs stage 1 and stage 2 of one run, going on where its folder says that it stopped.

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
            self._fit(trainer, module, resumed, run.autoencoder_last)
            loss = module.epoch_means.get("autoencoder/train_reconstruction")
            if loss is not None:
                console.print(f"Autoencoder trained: reconstruction loss {loss:.4f}.", highlight=False)
            autoencoder = module.autoencoder.cpu()
        if is_main():
            temporary = run.autoencoder.with_name("autoencoder.tmp")
            save_autoencoder(autoencoder, temporary)
            temporary.rename(run.autoencoder)
        return autoencoder

    def denoiser(self, autoencoder: AutoencoderKL) -> Trained:
        """Stage 2: train the denoiser with its audits."""
        config, run, experiment = self.experiment.config, self.run, self.experiment
        scheduler = experiment.scheduler()
        space = experiment.latent_space(autoencoder)
        samples = measure_samples(experiment, space, run.influence)
        audited, geometry = samples.batch, samples.geometry
        shape = tuple(audited.latent.shape[1:])
        console.print(f"Latents {shape}, normalisation: {space.normalisation}.", highlight=False, markup=False)
        bar, history = ProgressBar("denoiser", console), ScoreHistory(run.scores)

        def on_report(report: AuditReport, epoch: int) -> None:
            if not is_main():
                return
            if epoch == 0:
                bar.say(audit_legend(report))
            bar.say(audit_line(report, epoch, width=len(str(config.trainer.max_epochs))))
            self._log({**quartile_series(report, geometry), **report.data.coefficients}, epoch)
            history.write(epoch, experiment.onset_key, report.data.sample_index, report.scores_at(experiment.onset_key))

        def draw(report: AuditReport, epoch: int) -> dict[str, Figure]:
            if not config.trainer.figures or self.tidy is None:
                return {}
            curves = self.tidy.read("denoiser")
            epoch_of_onset = audit.onset.onset_epoch
            onset = None if epoch_of_onset is None else (audit.onset_key, epoch_of_onset)
            return {
                "memorization": memorization_figure(curves, audit.audit.keys, onset),
                "onset": onset_figure(
                    curves,
                    {
                        LOSS_GAP: loss_gap.onset.onset_epoch,
                        f"memorization/{audit.onset_key}/auroc": epoch_of_onset,
                        GENERATIONS: None if generations is None else generations.onset.onset_epoch,
                    },
                ),
            }

        audit = MemorizationAudit(
            experiment.audit(geometry),
            config.audit.every_n_epochs,
            self._detector(),
            experiment.onset_key,
            on_report,
        )
        loss_gap = LossGap(self._detector(), experiment.data.groups)
        sample = partial(generate_images, scheduler=scheduler, latent_space=space, latent_shape=shape, seed=config.seed)
        generate = None
        if config.trainer.num_sample_images and is_main():
            generate = partial(sample, num_images=config.trainer.num_sample_images, num_steps=config.trainer.num_sampling_steps)
        generations = self._generations(sample, bar)
        limit = config.audit.stop.limit
        stop = None
        if limit is not None:
            stop = StopOnMemorization(
                limit,
                bound=config.audit.stop.bound,
                action=config.audit.stop.action,
                factor=config.audit.stop.factor,
                key=experiment.onset_key,
                newest_report=lambda: audit.report,
                heldout_loss=lambda: loss_gap.heldout_loss,
                say=bar.say,
            )
        copies = {run.before_onset: audit.is_before_onset}
        if stop is not None:
            copies[run.under_limit] = stop.is_best_under_limit
        resumed = self._resume_point(run.last, "denoiser")
        if resumed is None:
            self._log_autoencoder_baseline(space)
            whole = gather_samples(samples)
            if is_main():
                self._log(geometry_series(whole.geometry, whole.batch), 0)
                if config.trainer.figures:
                    self._show_geometry(whole.geometry, whole.batch, space)
            del whole
        callbacks: list[Callback] = [bar, StopOnNonFiniteLoss(run.last, "denoiser.learning_rate")]
        if config.denoiser.ema_decay is not None:
            callbacks.append(AveragedWeights(config.denoiser.ema_decay))
        callbacks += [
            audit,
            loss_gap,
            *(each for each in (generations, stop) if each is not None),
            AuditFigures(run.figures, lambda: audit.report, draw, generate),
            RunCheckpoint(
                run.last,
                experiment.record("denoiser", self.composed.to_yaml(), space),
                every_n_minutes=config.trainer.checkpoint_every_n_minutes,
                is_due=lambda epoch: audit.audited_epoch == epoch,
                copies=copies,
                say=bar.say,
            ),
        ]
        module = experiment.denoiser_module(space, audited)
        trainer = self._trainer(config.trainer.max_epochs, callbacks, num_sanity_val_steps=0 if resumed else -1)
        self._fit(trainer, module, resumed, run.last)
        if self.wandb is not None:
            found = generations.summary() if generations is not None else {}
            self.wandb.experiment.summary.update({**audit.summary(), **loss_gap.summary(), **found})
        sentences = [
            onset_sentence(audit.onset_key, audit.onset.onset_epoch, audit.rise),
            loss_gap_sentence(loss_gap.onset.onset_epoch, loss_gap.rise),
        ]
        if generations is not None:
            sentences.append(generations_sentence(generations.onset.onset_epoch, generations.memorized))
        if stop is not None and (reason := stop.sentence()):
            sentences.insert(0, reason)
        evaluation, curves = None, {}
        if audit.report is not None:
            error = reconstruction_error(experiment, space)
            evaluation = Evaluation(audit.report, gather_samples(samples), error, str(space.normalisation))
            curves = draw(audit.report, audit.audited_epoch)
        return Trained(evaluation, audit.audited_epoch, sentences, curves)

    def _detector(self) -> OnsetDetector:
        audit = self.experiment.config.audit
        return OnsetDetector(audit.onset.num_consecutive, audit.confidence)

    def _generations(self, sample: Callable[..., Image], bar: ProgressBar) -> MemorizedGenerations | None:
        experiment, config = self.experiment, self.experiment.config.audit
        if config.generations.every_n_epochs is None or not is_main():
            return None
        return MemorizedGenerations(
            partial(
                sample,
                num_images=config.generations.num_images,
                num_steps=config.generations.num_steps,
                batch_size=config.generations.batch_size,
            ),
            experiment.data.images,
            experiment.data.split.member_index,
            experiment.data.split.heldout_index,
            config.generations.every_n_epochs,
            self._detector(),
            groups=experiment.data.groups,
            seed=experiment.config.seed,
            confidence=config.confidence,
            num_bootstrap=config.num_bootstrap,
            batch_size=config.generations.batch_size,
            say=bar.say,
            describe=bar.describe,
            show=self._show,
        )

    def _fit(self, trainer: Trainer, module: StepwiseModule, resumed: Path | None, last: Path) -> None:
        def advice() -> str:
            kept = f"The last checkpoint is {last}." if last.exists() else "There is no checkpoint yet."
            return f"{module.memory_advice()} {kept}"

        with explain_out_of_memory(advice):
            trainer.fit(module, ckpt_path=resumed, weights_only=True)

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

    def _resume_point(self, path: Any, stage: str) -> Any:
        """The checkpoint to go on from, or None; metrics.csv is cut back to it."""
        if not path.exists():
            self._cut_back(stage, -1)
            return None
        checkpoint = load_checkpoint(path, stage=stage)
        epoch = epochs_in(checkpoint)
        self._cut_back(stage, epoch)
        console.print(f"Going on with the {stage} after epoch {epoch}.", highlight=False)
        return path

    def _cut_back(self, stage: str, epoch: int) -> None:
        if self.tidy is not None:
            self.tidy.cut_back(stage, epoch)

    def _log_autoencoder_baseline(self, space: LatentSpace) -> None:
        """What the autoencoder gives away without any denoiser, and its reconstructions."""
        experiment = self.experiment
        score = -reconstruction_error(experiment, space)
        if not is_main():
            return
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
        return [each for each in (self.tidy, self.wandb) if each is not None]

    def _log(self, series: dict[str, float], epoch: int) -> None:
        for logger in self._loggers:
            logger.log_metrics({**series, "epoch": epoch})

    def _show(self, name: str, picture: np.ndarray | Figure, epoch: int = 0) -> None:
        show_picture(self._loggers, self.run.figures, name, picture, epoch=epoch)
