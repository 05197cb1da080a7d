"""Stage 2: the denoiser, with its audits."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from diffusers import AutoencoderKL
from lightning.pytorch import Callback
from matplotlib.figure import Figure

from callbacks.audit import MemorizationAudit
from callbacks.baselines import log_baselines
from callbacks.checkpoints import RunCheckpoint
from callbacks.ema import AveragedWeights
from callbacks.generations import MemorizedGenerations
from callbacks.images import AuditFigures
from callbacks.loss_gap import LossGap
from callbacks.nonfinite import StopOnNonFiniteLoss
from callbacks.progress import ProgressBar
from callbacks.runner import Runner
from callbacks.stop import StopOnMemorization
from ldm_privacy.assemble import Experiment
from ldm_privacy.audit import AuditReport, SampleGeometry
from ldm_privacy.measure import Evaluation, gather_samples, measure_samples, reconstruction_error
from ldm_privacy.onset import OnsetDetector
from ldm_privacy.report import audit_legend, audit_line, quartile_series
from ldm_privacy.report.curves import training_figures
from ldm_privacy.report.tables import generations_sentence, loss_gap_sentence, onset_sentence
from ldm_privacy.report.terminal import console
from ldm_privacy.training.processes import is_main
from ldm_privacy.training.sampling import generate_images
from ldm_privacy.training.score_history import ScoreHistory
from ldm_privacy.types import Image


@dataclass(frozen=True)
class Trained:
    """What stage 2 leaves.

    Attributes:
        is_audited: False where nothing was left to train.
        evaluation: The last audit, if there was one; the main process's.
        epoch: Of the last audit.
        sentences: Why the training was stopped, if it was, and the onsets.
    """

    is_audited: bool
    evaluation: Evaluation | None
    epoch: int
    sentences: list[str]


def train_denoiser(runner: Runner, autoencoder: AutoencoderKL) -> Trained:
    """Train the denoiser on the members' latents, audited before its first step, every n epochs and after its last."""
    experiment, run = runner.experiment, runner.run
    config = experiment.config
    scheduler = experiment.scheduler()
    space = experiment.latent_space(autoencoder)
    samples = measure_samples(experiment, space, run.influence)
    shape = tuple(samples.batch.latent.shape[1:])
    console.print(f"Latents {shape}, normalisation: {space.normalisation}.", highlight=False, markup=False)
    sample = partial(generate_images, scheduler=scheduler, latent_space=space, latent_shape=shape, seed=config.seed)
    watch = _Watch(runner, samples.geometry, sample)
    resumed = runner.resume_point(run.last, "denoiser")
    if resumed is None:
        log_baselines(runner, space, samples)
    callbacks: list[Callback] = [watch.bar, StopOnNonFiniteLoss(run.last, "denoiser.learning_rate")]
    if config.denoiser.ema_decay is not None:
        callbacks.append(AveragedWeights(config.denoiser.ema_decay))
    callbacks += watch.callbacks
    callbacks.append(
        RunCheckpoint(
            run.last,
            experiment.record("denoiser", runner.composed.to_yaml(), space),
            every_n_minutes=config.trainer.checkpoint_every_n_minutes,
            is_due=lambda epoch: watch.audit.audited_epoch == epoch,
            copies=watch.copies,
            say=watch.bar.say,
        )
    )
    module = experiment.denoiser_module(space, samples.batch)
    runner.fit(module, callbacks, max_epochs=config.trainer.max_epochs, resumed=resumed, last=run.last)
    if runner.wandb is not None:
        runner.wandb.experiment.summary.update(watch.summary())
    epoch = watch.audit.audited_epoch
    if watch.audit.news is None:
        return Trained(False, None, epoch, watch.sentences())
    error, samples, report = reconstruction_error(experiment, space), gather_samples(samples), watch.audit.report
    evaluation = None if report is None else Evaluation(report, samples, error, str(space.normalisation))
    return Trained(True, evaluation, epoch, watch.sentences())


class _Watch:
    """The callbacks that watch the denoiser memorize, and what they have to say at the end.

    Args:
        runner: Of the run.
        geometry: Of this process's audited samples.
        sample: `generate_images` of this model; takes a predictor, `num_images` and `num_steps`.
    """

    def __init__(self, runner: Runner, geometry: SampleGeometry, sample: Callable[..., Image]):
        experiment = runner.experiment
        config = experiment.config
        self.runner, self.geometry = runner, geometry
        self.key = experiment.onset_key
        self.bar, self.history = ProgressBar("denoiser", console), ScoreHistory(runner.run.scores)
        every = config.audit.every_n_epochs
        self.audit = MemorizationAudit(experiment.audit(geometry), every, _detector(experiment), self.key, self._on_report)
        self.loss_gap = LossGap(_detector(experiment), experiment.data.groups)
        self.generations = self._memorized_generations(sample)
        self.stop = self._stop()
        generate = None
        if config.trainer.num_sample_images and is_main():
            generate = partial(sample, num_images=config.trainer.num_sample_images, num_steps=config.trainer.num_sampling_steps)
        figures = AuditFigures(runner.run.figures, lambda: self.audit.report, self.draw, generate)
        watching = (self.audit, self.loss_gap, self.generations, self.stop, figures)
        self.callbacks: list[Callback] = [each for each in watching if each is not None]
        self.copies = {runner.run.before_onset: self.audit.is_before_onset}
        if self.stop is not None:
            self.copies[runner.run.under_limit] = self.stop.is_best_under_limit

    def draw(self, report: AuditReport, epoch: int) -> dict[str, Figure]:
        """The curves over the epochs, by name; none where figures are off or this process writes nothing."""
        if not self.runner.experiment.config.trainer.figures or self.runner.tidy is None:
            return {}
        return training_figures(self.runner.tidy.read("denoiser"), self.audit.audit.keys, self.key)

    def sentences(self) -> list[str]:
        """Why the training was stopped, if it was, and the onsets."""
        said = [
            onset_sentence(self.key, self.audit.onset.onset_epoch, self.audit.rise),
            loss_gap_sentence(self.loss_gap.onset.onset_epoch, self.loss_gap.rise),
        ]
        if self.generations is not None:
            said.append(generations_sentence(self.generations.onset.onset_epoch, self.generations.memorized))
        if self.stop is not None and (reason := self.stop.sentence()):
            said.insert(0, reason)
        return said

    def summary(self) -> dict[str, object]:
        """Best and last numbers and the onsets: the run summary."""
        copies = {} if self.generations is None else self.generations.summary()
        return {**self.audit.summary(), **self.loss_gap.summary(), **copies}

    def _on_report(self, report: AuditReport, epoch: int) -> None:
        if epoch == 0:
            self.bar.say(audit_legend(report))
        self.bar.say(audit_line(report, epoch, width=len(str(self.runner.experiment.config.trainer.max_epochs))))
        self.runner.log({**quartile_series(report, self.geometry), **report.data.coefficients}, epoch)
        self.history.write(epoch, self.key, report.data.sample_index, report.scores_at(self.key))

    def _memorized_generations(self, sample: Callable[..., Image]) -> MemorizedGenerations | None:
        experiment, config = self.runner.experiment, self.runner.experiment.config.audit
        settings = config.generations
        if settings.every_n_epochs is None or not is_main():
            return None
        return MemorizedGenerations(
            partial(sample, num_images=settings.num_images, num_steps=settings.num_steps, batch_size=settings.batch_size),
            experiment.data.images,
            experiment.data.split.member_index,
            experiment.data.split.heldout_index,
            settings.every_n_epochs,
            _detector(experiment),
            groups=experiment.data.groups,
            seed=experiment.config.seed,
            confidence=config.confidence,
            num_bootstrap=config.num_bootstrap,
            batch_size=settings.batch_size,
            say=self.bar.say,
            describe=self.bar.describe,
            show=self.runner.show,
        )

    def _stop(self) -> StopOnMemorization | None:
        settings = self.runner.experiment.config.audit.stop
        if settings.limit is None:
            return None
        return StopOnMemorization(
            settings.limit,
            bound=settings.bound,
            action=settings.action,
            factor=settings.factor,
            key=self.key,
            newest=lambda: self.audit.news,
            heldout_loss=lambda: self.loss_gap.heldout_loss,
            say=self.bar.say,
        )


def _detector(experiment: Experiment) -> OnsetDetector:
    audit = experiment.config.audit
    return OnsetDetector(audit.onset.num_consecutive, audit.confidence)
