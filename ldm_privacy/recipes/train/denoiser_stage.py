"""Stage 2: the denoiser, watched while it trains."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ldm_privacy.audit.audit import Audit
from ldm_privacy.audit.measure import Measuring
from ldm_privacy.callbacks import AveragedWeights, ProgressBar, RunCheckpoint, StopOnMemorization, StopOnNonFiniteLoss, Watch
from ldm_privacy.device import explain_out_of_memory, lower_memory
from ldm_privacy.models.channel_map import ChannelMap
from ldm_privacy.models.codec import Codec
from ldm_privacy.processes import is_main
from ldm_privacy.recipes.audit import Audited
from ldm_privacy.recipes.run_setup import RunSetup
from ldm_privacy.recipes.terminal import console
from ldm_privacy.recipes.train.baselines import log_baselines
from ldm_privacy.recipes.train.fitting import Fitting, steps_of
from ldm_privacy.report.curves import mask_curves
from ldm_privacy.runs.series import SeriesFile
from ldm_privacy.targets.checkpoint import beside_its_base, facts_of
from ldm_privacy.targets.denoiser import Denoiser
from ldm_privacy.targets.target import Target
from ldm_privacy.training.denoiser import DenoiserModule
from ldm_privacy.training.private import PrivateDenoiserModule
from ldm_privacy.watch.loss_gap import LossGap
from ldm_privacy.watch.memorization import Memorization
from ldm_privacy.watch.watcher import Every, Look, Moment, Watcher, results_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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


def train_denoiser(
    setup: RunSetup,
    fitting: Fitting,
    codec: Codec,
    network: nn.Module,
    denoiser: Denoiser,
    record: dict[str, Any],
    *,
    is_mapped: bool,
) -> Trained:
    """Train the denoiser on the members' latents, watched before its first step, at every cadence and after its last.

    Args:
        setup, fitting: Of the run.
        codec: Trained.
        network, denoiser: Before its first step, and what a checkpoint says of it.
        record: Stored in every checkpoint.
        is_mapped: The codec has its channel map already (a checkpoint's); otherwise it is fitted to the members.
    """
    run, config = fitting.run, setup.config
    measuring = setup.measuring(codec, run.store)
    members, audited = setup.data.split.member_index, setup.audited_index
    # The members that are not audited apart, so that an evaluation finds the others in the store.
    others = members[~torch.isin(members, audited)]
    of_audited = measuring.means(audited)
    known = [(audited, of_audited), *([(others, measuring.means(others))] if len(others) else [])]
    of_members = measuring.joined(known, members)
    if not is_mapped and codec.network is not None:
        advice = f"while the channel map is fitted: {lower_memory(setup.device)}."
        given = {"codec": codec, "sample_index": members, "seed": config.seed, "progress": setup.progress}
        with explain_out_of_memory(lambda: advice):
            codec.channel_map = config.denoiser.channel_map.build_a(ChannelMap, means=of_members, **given)
    console.print(f"Latents {tuple(setup.latent_shape(codec))}, {codec}.", highlight=False, markup=False)
    if setup.privacy is not None:
        console.print(setup.foretold_privacy, highlight=False, markup=False)
    samples = setup.samples(measuring, of_audited)
    audit = setup.audit(samples, whose_reference=setup.whose_reference)
    whole = samples.gathered()
    resumed = fitting.resume_point(run.last, "denoiser")
    figures = log_baselines(setup, fitting, measuring, whole) if resumed is None and is_main() else None
    bar = ProgressBar("denoiser", console)
    watched = _watched(setup, fitting, audit, bar)
    stop = _stop(setup, watched, bar)
    audits = watched["memorization"]
    assert isinstance(audits, Memorization)
    copies = {run.before_onset: audits.is_before_onset}
    if stop is not None:
        copies[run.under_limit] = stop.is_best_under_limit

    def draw(looks: Mapping[str, Look], moment: Moment) -> None:
        if "memorization" in looks and audits.report is not None and config.trainer.figures:
            history = SeriesFile(run.metrics).read("denoiser")
            data = audits.report.data
            keys = [row.key for row in audits.report.rows if row.key.attack not in data.views]
            curves = mask_curves(history, keys, audits.key, data.derived)
            fitting.show_curves(curves[0], moment.epoch)

    module = _module(setup, network, denoiser, measuring, of_members)
    del known, of_audited, of_members  # a training holds latents, the audit its samples
    record = {**record, "stage": "denoiser", "codec": codec.record(), "denoiser": denoiser.record()}
    callbacks = [
        bar,
        StopOnNonFiniteLoss(run.last, "denoiser.learning_rate"),
        None if config.denoiser.ema_decay is None else AveragedWeights(config.denoiser.ema_decay),
        Watch(
            watched,
            lambda module: beside_its_base(Target(codec, module.predictor), denoiser),
            say=bar.say,
            show=fitting.show,
            then=draw,
        ),
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
    fitting.fit(module, present, max_epochs=config.trainer.max_epochs, resumed=resumed, last=run.last)
    fitting.summarise({name: value for watcher in watched.values() for name, value in watcher.summary().items()})
    sentences = [sentence for watcher in watched.values() for sentence in watcher.sentences()]
    if stop is not None and (reason := stop.sentence()):
        sentences.insert(0, reason)
    if audits.news is None:
        return Trained(None, True, sentences)
    if audits.report is None or audits.last is None:
        return Trained(None, False, sentences)
    epoch = audits.last.epoch
    privacy = module.reached if isinstance(module, PrivateDenoiserModule) else None
    facts = facts_of(codec, denoiser, network, epoch, privacy)
    target = beside_its_base(Target(codec, module.predictor, facts, privacy=privacy), denoiser)
    results = results_of(watched, audits.last.step)
    return Trained(Audited(target, audits.report, whole, epoch, results), False, sentences, figures)


def _module(setup: RunSetup, network: nn.Module, denoiser: Denoiser, measuring: Measuring, means: Tensor) -> DenoiserModule:
    """Stage 2, ready to fit; `means` are the members'."""
    config = setup.config
    members = setup.data.split.member_index
    variants = [means, measuring.means(members, mirrored=True)] if config.data.flip else [means]
    latents = measuring.latents(*variants).unflatten(0, (len(variants), len(members)))
    budget = math.inf if config.data.memory_gib is None else config.data.memory_gib * 2**30
    choices, num_choices = setup.condition.choices(members)
    build: Callable[..., DenoiserModule] = (
        DenoiserModule if setup.privacy is None else partial(PrivateDenoiserModule, privacy=setup.privacy)
    )
    return build(
        network,
        denoiser.alphas_cumprod,
        latents,
        latents_to_device=latents.nbytes <= budget,
        prediction_type=denoiser.prediction_type,
        num_parts=config.denoiser.accumulate,
        choices=choices,
        num_choices=num_choices,
        null=setup.condition.null(),
        condition_dropout=setup.condition.dropout,
        given=setup.condition.given,
        given_in_training=setup.condition.given_in_training,
        repeats=setup.repeats(members),
        timesteps=setup.timestep_sampler,
        **steps_of(config, config.denoiser, warmup_steps=config.denoiser.warmup_steps),
    )


def _watched(setup: RunSetup, fitting: Fitting, audit: Audit, bar: ProgressBar) -> dict[str, Watcher]:
    """The audits, and the configured watchers beside them."""
    audits = Memorization(
        audit,
        every=Every(epochs=setup.config.audit.every_n_epochs),
        key=setup.onset_key,
        onset=setup.detector(),
        history=fitting.history,
        progress=bar.during_look,
    )
    return {"memorization": audits, **setup.watchers(audit.samples, bar.during_look)}


def _stop(setup: RunSetup, watched: Mapping[str, Watcher], bar: ProgressBar) -> StopOnMemorization | None:
    settings = setup.config.audit.stop
    if settings.at is None or setup.gate is None:
        return None
    losses = watched["loss_gap"]
    assert isinstance(losses, LossGap)
    return StopOnMemorization(
        setup.gate,
        at=settings.at,
        action=settings.action,
        factor=settings.factor,
        watched=watched,
        heldout_loss=lambda: losses.heldout_loss,
        say=bar.say,
    )
