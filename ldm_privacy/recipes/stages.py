"""The two stages of a training, in one run folder, each going on where the folder says that it stopped."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import Logger, WandbLogger
from torch import Tensor, nn

from ldm_privacy.audit import Audit, AuditedSamples, AuditReport
from ldm_privacy.audit.measure import Measuring
from ldm_privacy.callbacks import AveragedWeights, ProgressBar, RunCheckpoint, StopOnMemorization, StopOnNonFiniteLoss, Watch
from ldm_privacy.device import OutOfMemory, explain_out_of_memory
from ldm_privacy.metrics import auroc_interval
from ldm_privacy.models.codec import Codec
from ldm_privacy.models.kl import KLCodec, PretrainedCodec
from ldm_privacy.processes import is_main, world_size
from ldm_privacy.recipes.audit import Audited
from ldm_privacy.recipes.launch import cluster_plugins
from ldm_privacy.recipes.setup import Setup
from ldm_privacy.recipes.terminal import console
from ldm_privacy.runs.folder import RunFolder
from ldm_privacy.runs.history import ScoreHistory
from ldm_privacy.runs.pictures import log_picture, save_picture
from ldm_privacy.runs.series import SeriesFile
from ldm_privacy.targets.checkpoint import facts_of
from ldm_privacy.targets.record import Checkpoint, Denoiser
from ldm_privacy.targets.target import Target
from ldm_privacy.training.autoencoder import AutoencoderModule
from ldm_privacy.training.denoiser import DenoiserModule
from ldm_privacy.training.stepwise import StepwiseModule
from ldm_privacy.watch.loss_gap import LossGap
from ldm_privacy.watch.memorization import Memorization
from ldm_privacy.watch.pictures import image_grid
from ldm_privacy.watch.watcher import Every, Moment, Watcher

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

NUM_RECONSTRUCTIONS = 16


@dataclass(frozen=True)
class Trained:
    """What stage 2 leaves.

    Attributes:
        audited: The last audit; None in other processes than the main one, and where nothing was left to train.
        was_finished: Nothing was left to train.
        sentences: Why the training was stopped, if it was, and the onsets.
        figures: Of the geometry, where they were drawn.
    """

    audited: Audited | None
    was_finished: bool
    sentences: list[str]
    figures: "Mapping[str, Figure] | None" = None


class Stages:
    """Fits one stage after the other.

    Args:
        setup: Builds the objects.
        record: Stored in every checkpoint.
        run: The folder.
        loggers: In the main process; none in the others.
        checkpoint: The newest of the denoiser, where there is one.
    """

    def __init__(
        self, setup: Setup, record: dict[str, Any], run: RunFolder, loggers: list[Logger], checkpoint: Checkpoint | None
    ):
        self.setup = setup
        self.record = record
        self.run = run
        self.loggers = loggers
        self.checkpoint = checkpoint

    def train_codec(self, codec: Codec) -> Codec:
        """Stage 1, unless it is done: the trained (or loaded) codec; its autoencoder lies in the run folder from then on."""
        run, config = self.run, self.setup.config
        if self.checkpoint is not None:
            return codec  # the checkpoint's own
        if run.autoencoder.is_dir():
            return PretrainedCodec.build(
                path=str(run.autoencoder), image_channels=config.data.channels, resolution=config.data.resolution
            )
        if config.autoencoder.max_epochs:
            assert codec.network is not None
            module = self._autoencoder(codec.network)
            resumed, last = self._resume_point(run.autoencoder_last, "autoencoder"), run.autoencoder_last
            bar = ProgressBar("autoencoder", console)
            checkpoints = RunCheckpoint(
                last,
                {**self.record, "stage": "autoencoder"},
                every_n_minutes=config.trainer.checkpoint_every_n_minutes,
                is_due=lambda epoch: epoch == config.autoencoder.max_epochs,
                say=bar.say,
            )
            callbacks: list[Callback] = [bar, StopOnNonFiniteLoss(last, "autoencoder.learning_rate"), checkpoints]
            self._fit(module, callbacks, max_epochs=config.autoencoder.max_epochs, resumed=resumed, last=last)
            loss = module.epoch_means.get("autoencoder/train_reconstruction")
            if loss is not None:
                console.print(f"Autoencoder trained: reconstruction loss {loss:.4f}.", highlight=False)
            codec = KLCodec(module.autoencoder.cpu())
        if is_main() and isinstance(codec, KLCodec):
            temporary = run.autoencoder.with_name("autoencoder.tmp")
            codec.save(temporary)
            temporary.rename(run.autoencoder)
        return codec

    def train_denoiser(self, codec: Codec, network: nn.Module, denoiser: Denoiser) -> Trained:
        """Stage 2: on the members' latents, watched before its first step, at every cadence and after its last."""
        setup, run, config = self.setup, self.run, self.setup.config
        measuring = setup.measuring(codec, run.store)
        members, audited = setup.data.split.member_index, setup.audited_index
        index = torch.cat([members, audited]).unique()
        means = measuring.means(index)
        of_members, of_audited = (means[torch.searchsorted(index, each)] for each in (members, audited))
        if self.checkpoint is None and codec.network is not None:
            codec.channel_map = config.denoiser.channel_map.build(means=of_members, codec=codec)
        console.print(f"Latents {tuple(setup.latent_shape(codec))}, {codec}.", highlight=False, markup=False)
        samples = setup.samples(measuring, of_audited)
        audit = setup.audit(samples)
        resumed = self._resume_point(run.last, "denoiser")
        whole = samples.gathered()
        figures = self._log_baselines(measuring, whole) if resumed is None and is_main() else None
        bar = ProgressBar("denoiser", console)
        watched = self._watched(audit, bar)
        stop = self._stop(watched, bar)
        audits = watched["memorization"]
        assert isinstance(audits, Memorization)
        copies = {run.before_onset: audits.is_before_onset}
        if stop is not None:
            copies[run.under_limit] = stop.is_best_under_limit
        module = self._denoiser(network, denoiser, measuring, of_members)
        record = {**self.record, "stage": "denoiser", "codec": codec.record(), "denoiser": denoiser.record()}
        callbacks: list[Callback | None] = [
            bar,
            StopOnNonFiniteLoss(run.last, "denoiser.learning_rate"),
            None if config.denoiser.ema_decay is None else AveragedWeights(config.denoiser.ema_decay),
            Watch(watched, lambda module: Target(codec, module.predictor), say=bar.say, show=self._show),
            stop,
            RunCheckpoint(
                run.last,
                record,
                every_n_minutes=config.trainer.checkpoint_every_n_minutes,
                is_due=lambda epoch: audits.last is not None and audits.last.epoch == epoch,
                copies=copies,
                say=bar.say,
            ),
        ]
        present = [each for each in callbacks if each is not None]
        self._fit(module, present, max_epochs=config.trainer.max_epochs, resumed=resumed, last=run.last)
        self._summarise(watched)
        sentences = [sentence for watcher in watched.values() for sentence in watcher.sentences()]
        if stop is not None and (reason := stop.sentence()):
            sentences.insert(0, reason)
        if audits.news is None:
            return Trained(None, True, sentences)
        if audits.report is None or audits.last is None:
            return Trained(None, False, sentences)
        epoch = audits.last.epoch
        target = Target(codec, module.predictor, facts_of(codec, denoiser, network, epoch))
        return Trained(Audited(target, audits.report, whole, epoch), False, sentences, figures)

    def _autoencoder(self, autoencoder: nn.Module) -> AutoencoderModule:
        """Stage 1, ready to fit."""
        config, split = self.setup.config, self.setup.data.split
        parts = {
            "members": [split.member_index],
            "public": [split.public_index],
            "all": [split.member_index, split.public_index],
        }
        return AutoencoderModule(
            autoencoder,  # type: ignore[arg-type]
            self.setup.data.pixels(torch.cat(parts[config.autoencoder.train_on])),
            {label: loss.build() for label, loss in config.autoencoder.losses.items()},
            flip=config.data.flip,
            batch_size=config.autoencoder.batch_size,
            learning_rate=config.autoencoder.learning_rate,
            weight_decay=config.autoencoder.weight_decay,
            seed=config.seed,
            compile_mode=config.trainer.compile,
            channels_last=config.trainer.channels_last,
        )

    def _denoiser(self, network: nn.Module, denoiser: Denoiser, measuring: Measuring, means: Tensor) -> DenoiserModule:
        """Stage 2, ready to fit; `means` are the members'."""
        setup, config = self.setup, self.setup.config
        members, channel_map = setup.data.split.member_index, measuring.codec.channel_map
        variants = [channel_map(means)]
        if config.data.flip:
            variants.append(channel_map(measuring.means(members, mirrored=True)))
        return DenoiserModule(
            network,
            denoiser.alphas_cumprod,
            torch.stack(variants),
            prediction_type=config.denoiser.prediction_type,
            condition=setup.condition(members),
            null=setup.condition.null(),
            condition_dropout=setup.condition.dropout,
            batch_size=config.denoiser.batch_size,
            learning_rate=config.denoiser.learning_rate,
            weight_decay=config.denoiser.weight_decay,
            seed=config.seed,
            warmup_steps=config.denoiser.warmup_steps,
            compile_mode=config.trainer.compile,
            channels_last=config.trainer.channels_last,
        )

    def _watched(self, audit: Audit, bar: ProgressBar) -> dict[str, Watcher]:
        """The audits, and the configured watchers beside them."""
        setup, history = self.setup, ScoreHistory(self.run.scores)

        def keep_scores(report: AuditReport, moment: Moment) -> None:
            history.write(moment.epoch, setup.onset_key, report.data.sample_index, report.scores_at(setup.onset_key))

        audits = Memorization(
            audit,
            every=Every(epochs=setup.config.audit.every_n_epochs),
            key=setup.onset_key,
            onset=setup.detector(),
            on_report=keep_scores,
            progress=bar.during_look,
        )
        return {"memorization": audits, **setup.watchers(audit.samples, bar.during_look)}

    def _stop(self, watched: Mapping[str, Watcher], bar: ProgressBar) -> StopOnMemorization | None:
        settings = self.setup.config.audit.stop
        if settings.limit is None:
            return None
        audits, losses = watched["memorization"], watched["loss_gap"]
        assert isinstance(audits, Memorization)
        assert isinstance(losses, LossGap)
        return StopOnMemorization(
            settings.limit,
            bound=settings.bound,
            action=settings.action,
            factor=settings.factor,
            audits=audits,
            heldout_loss=lambda: losses.heldout_loss,
            say=bar.say,
        )

    def _fit(
        self, module: StepwiseModule, callbacks: list[Callback], *, max_epochs: int, resumed: Path | None, last: Path
    ) -> None:
        """Train to `max_epochs`, from the checkpoint `resumed` where there is one; `last` is named where memory runs out."""
        config = self.setup.config.trainer
        trainer = Trainer(
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

    def _resume_point(self, path: Path, stage: str) -> Path | None:
        """The checkpoint to go on from, or None; metrics.csv is cut back to it."""
        epoch = Checkpoint.read(path, stage=stage).epoch if path.exists() else -1
        if is_main():
            SeriesFile(self.run.metrics).cut_back(stage, epoch)
        if epoch < 0:
            return None
        console.print(f"Going on with the {stage} after epoch {epoch}.", highlight=False)
        return path

    def _show(self, name: str, picture: "np.ndarray | Figure", epoch: int = 0) -> None:
        """Store a picture in the run's figures, and log it."""
        save_picture(self.run.figures, name, picture)
        log_picture(self.loggers, name, picture, epoch=epoch)

    def _log_baselines(self, measuring: Measuring, whole: AuditedSamples) -> "dict[str, Figure] | None":
        """What is there before the first step: the codec's leak, its reconstructions, the geometry; the main process's part.

        Returns the figures of the geometry, where they are drawn.
        """
        setup, config, codec = self.setup, self.setup.config, measuring.codec
        if codec.network is None or whole.reconstruction_error is None:
            return None
        from ldm_privacy.report.geometry_report import geometry_figures, geometry_series

        error, is_member = whole.reconstruction_error, whole.is_member
        leak = auroc_interval(-error, is_member, confidence=config.audit.confidence, group=whole.group)
        series = {
            "baseline/reconstruction/members": float(error[is_member].mean()),
            "baseline/reconstruction/heldout": float(error[~is_member].mean()),
            **leak.series("baseline/reconstruction/auroc"),
            **geometry_series(whole),
        }
        for logger in self.loggers:
            logger.log_metrics({**series, "epoch": 0}, step=0)
        console.print(f"Autoencoder alone (reconstruction error): AUROC {leak}.", highlight=False)
        if not config.trainer.figures:
            return None
        image = setup.data.images(whole.sample_index[:NUM_RECONSTRUCTIONS])
        both = torch.stack([image, measuring.decoded(whole.latent[:NUM_RECONSTRUCTIONS])], 1).flatten(0, 1)
        self._show("reconstructions", image_grid(both, columns=8))
        figures = geometry_figures(whole, setup.masks, codec.decode, setup.data.images, seed=config.seed)
        for name, figure in figures.items():
            self._show(name, figure)
        return figures

    def _summarise(self, watched: Mapping[str, Watcher]) -> None:
        values = {name: value for watcher in watched.values() for name, value in watcher.summary().items()}
        for logger in self.loggers:
            if isinstance(logger, WandbLogger):
                logger.experiment.summary.update(values)
