"""A rehearsal of the user's own components on a few samples before anything is trained: what raises, or returns something else
than it must, is told at once. Of the built-in ones the attacks are rehearsed, without a network: some settings don't go with
some latents.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from ldm_privacy.audit.audit import Audit
from ldm_privacy.audit.calibrate import derivations, level, with_calibrated
from ldm_privacy.audit.kept import KeptScores
from ldm_privacy.audit.samples import AuditedSamples
from ldm_privacy.audit.scores import TUNED, AuditScores
from ldm_privacy.controls.finding import Case, findings_of
from ldm_privacy.errors import UserError, under
from ldm_privacy.geometry.stream import stream_influence
from ldm_privacy.losses.base import Autoencoded, CodecLoss, last_weight
from ldm_privacy.models.channel_map import ChannelMap
from ldm_privacy.models.codec import Codec
from ldm_privacy.models.ideal import MembershipBlindPredictor
from ldm_privacy.models.predictor import NetworkPredictor, network_input, output_of
from ldm_privacy.plugins import blamed_on, is_own
from ldm_privacy.randomness import normal, uniform
from ldm_privacy.recipes.run_setup import RunSetup
from ldm_privacy.recipes.setup import Setup
from ldm_privacy.recipes.terminal import progress
from ldm_privacy.registry import CHANNEL_MAPS, CONTROLS, WATCHERS
from ldm_privacy.targets.denoiser import Denoiser
from ldm_privacy.targets.target import Target
from ldm_privacy.types import AuditKey, Latent, NoisePredictor, check_shape, no_progress
from ldm_privacy.watch.undisturbed import undisturbed
from ldm_privacy.watch.watcher import Moment, look_with

MOST_SAMPLES = 512
"""Of each side of each half, that watchers are rehearsed with."""
MOST_PASSES = 8192
"""An attack or a watcher whose rehearsal costs more is not rehearsed."""


def rehearse_audit(setup: Setup, codec: Codec, predictor: NoisePredictor) -> None:
    """Mask rules, attacks, calibrations, the influence estimator and controls, on noise; the predictor is on the run's device.

    Raises whatever they raise, and ValueError or TypeError where they return something else, blamed on the component.
    """
    with undisturbed(nn.Identity()):
        few = _with_noise(setup, codec, _few(setup.blank_samples(codec), 16))
        samples = _few(few, 4).to(setup.device)
        for rule in filter(is_own, setup.masks.values()):
            with blamed_on(rule):
                float(rule.keep_fraction)
                samples.keep(rule)
        audit = setup.audit(samples)
        stand_in = MembershipBlindPredictor(samples.latent, predictor.alphas_cumprod)
        for label, attack in setup.attacks.items():
            with blamed_on(attack):
                alone = replace(audit, attacks={label: attack}, calibrations={})
                if alone.num_passes > MOST_PASSES:
                    continue
                try:  # a built-in one looks at what is predicted alone, so nothing need be computed by a network
                    scores = alone.scores(alone.collect(predictor if is_own(attack) else stand_in))
                except UserError as error:
                    raise UserError(under(f"audit.attacks.{label}", str(error), ())) from error
                if is_own(attack) and not all(score.isfinite().all() for score in scores.scores.values()):
                    raise ValueError("a statistic is not finite")
        _rehearse_calibrations(setup, replace(audit, samples=few))
        if codec.network is not None and is_own(setup.influence):
            with blamed_on(setup.influence), torch.enable_grad():
                latent = samples.latent[:2, :, :4, :4]  # a whole one may cost as many passes as it has dimensions
                found = stream_influence(setup.influence, _smooth_decoder, latent, samples.sample_index[:2])
                check_shape("influence", found.influence, latent.shape)
                int(setup.influence.products_per_sample(latent[0].numel(), 4 * latent[0].numel()))
        case = Case(few, setup.data.images, setup.intervals, setup.config.seed)
        for name in CONTROLS:
            if is_own(CONTROLS.get(name)):
                findings_of(name, case)


def rehearse_training(setup: RunSetup, codec: Codec, network: nn.Module, denoiser: Denoiser) -> None:
    """All of `rehearse_audit`, and codec, channel map, losses, denoiser and watchers, with the networks as they are."""
    abar, kind = denoiser.alphas_cumprod.to(setup.device), denoiser.prediction_type
    predictor = NetworkPredictor(network, abar, kind, setup.condition.given)
    with undisturbed(network):
        if is_own(codec):
            _rehearse_codec(setup, codec)
        component = setup.config.denoiser.channel_map
        if is_own(fit := CHANNEL_MAPS.get(component.name)):
            with blamed_on(fit):
                means = _noise(setup, codec, torch.arange(64))
                given = {"codec": codec, "sample_index": torch.arange(64), "seed": setup.config.seed, "progress": no_progress}
                fitted = component.build_a(ChannelMap, means=means, **given)
                check_shape("channel map", fitted(means), means.shape)
        if is_own(sampler := setup.timestep_sampler):
            with blamed_on(sampler):
                drawn = check_shape("timesteps", sampler(64, setup.device), (64,), torch.int64)
                if not 0 <= int(drawn.min()) <= int(drawn.max()) < setup.num_train_timesteps:
                    raise ValueError(f"timesteps: {int(drawn.min())} to {int(drawn.max())} is outside the noise schedule")
        for loss in filter(is_own, setup.losses.values()):
            with blamed_on(loss):
                _rehearse_loss(setup, codec, loss)
        samples = setup.blank_samples(codec)
        if any(is_own(WATCHERS.get(each.name)) for each in setup.config.watch.values()):
            samples = _with_noise(setup, codec, _few(samples, MOST_SAMPLES))
        watchers = {label: each for label, each in setup.watchers(samples, progress).items() if is_own(each)}
        needs_network = any(is_own(each) for each in (network, *watchers.values(), *setup.attacks.values()))
        with _on(setup.device, network) if needs_network else nullcontext():
            if is_own(network):
                few = _with_noise(setup, codec, samples.rows(slice(2)))
                _rehearse_network(setup, network, denoiser, few)
            for label, watcher in watchers.items():
                with blamed_on(watcher):
                    if sum(watcher.passes().values()) <= MOST_PASSES:
                        looks = look_with({label: watcher}, Target(codec, predictor), Moment(0, 0), setup.device)
                        _ = [float(value) for look in looks.values() for value in look.series.values()]
            rehearse_audit(setup, codec, predictor)


def _rehearse_calibrations(setup: Setup, audit: Audit) -> None:
    """Each half of some samples for the other, noise for scores, a reference's too; without earlier audits, with three."""
    of_all = derivations(setup.calibrations, audit.calibrated)
    own = [each for each in of_all if is_own(each.calibration)]
    plain = [key for key in audit.keys if key.mask != TUNED and key not in {each.key for each in of_all}]
    index, attacks = audit.samples.sample_index, audit.asked
    timesteps = {name: list(audit.timesteps) if attack.per_timestep else [] for name, attack in attacks.items()}

    def noise(time: int) -> dict[AuditKey, Tensor]:
        """Of every attack and mask, (folds, timesteps, samples), below 0 as minus a statistic is."""
        drawn = {key: normal(f"rehearsal {time} {key}", (index,), (len(timesteps[key.attack]) or 1,)) for key in plain}
        return {key: -each.exp().T.expand(2 if audit.cross_fit else 1, -1, -1) for key, each in drawn.items()}

    samples, earlier = audit.samples, {time: KeptScores(index, timesteps, noise(time), {}) for time in range(3)}
    scales, kept = {name: attack.log_scale for name, attack in attacks.items()}, dict.fromkeys(plain, 1.0)
    reference = {key: level(score, scales[key.attack]) for key, score in noise(4).items()}
    whom = samples.is_member, samples.is_calibration, samples.group
    data = AuditScores(index, *whom, timesteps, noise(3), kept, reference=reference)
    for history in ({}, earlier):
        made = with_calibrated(data, own, scales, samples.complexity, history)
        for each in own:
            with blamed_on(each.calibration):
                if not made.scores[each.key].isfinite().all():
                    raise ValueError("score: it is not finite")


def _rehearse_loss(setup: RunSetup, codec: Codec, loss: CodecLoss) -> None:
    """On two images, given what a step gives it."""
    image, place, last = setup.data.images(setup.audited_index[:2]), torch.arange(2), last_weight(codec.network)
    if last is not None:
        last.requires_grad_()  # as stage 1 will
    with torch.enable_grad():
        mean = _noise(setup, codec, place).requires_grad_()
        batch = Autoencoded(image, mean, 0.5 * mean, codec.decode(mean), seed=None)
        if not loss.is_within:
            batch = batch._replace(decode=codec.decode, last_weight=last, seed=setup.config.seed, place=place, num_samples=2)
        value = check_shape("loss", loss(batch), ())
        if not value.isfinite() or not value.requires_grad:
            raise ValueError("loss: it is not finite, or no gradient flows through it")
        check_shape("weighted", loss.weighted(value, batch, (batch.output - image).abs().mean()), ())


def _rehearse_codec(setup: Setup, codec: Codec) -> None:
    """Both ways for two images, and through its record."""
    image, device = setup.data.images(setup.audited_index[:2]), codec.device
    with blamed_on(codec):
        codec.to(setup.device)
        mean = check_shape("mean", codec.mean(image), (2, *setup.latent_shape(codec)))
        check_shape("decode", codec.decode(mean), image.shape)
        again = type(codec).from_record(codec.record())
        codec.to(device)
        if not isinstance(again, Codec):
            raise TypeError(f"from_record: it returns {type(again).__name__}, not a Codec")


def _rehearse_network(setup: Setup, network: nn.Module, denoiser: Denoiser, samples: AuditedSamples) -> None:
    """One pass of two latents in training and one in evaluation mode, with the condition and with its null."""
    latent = samples.latent.to(setup.device)
    timestep = torch.tensor([0, len(denoiser.alphas_cumprod) - 1], device=latent.device)
    null = {name: value.expand(2, *value.shape[1:]) for name, value in setup.condition.null().items()}
    buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
    for is_training, condition in ((True, samples.condition), (False, null)):
        told = setup.condition.given({name: value.to(latent.device) for name, value in condition.items()})
        with blamed_on(network):
            network.train(is_training)
            state, time = network_input(latent, denoiser.alphas_cumprod, timestep, denoiser.prediction_type)
            check_shape("denoiser", output_of(network, state, time, told), latent.shape)
    for buffer, before in buffers:  # running means of a normalisation, for one
        buffer.copy_(before)


@contextmanager
def _on(device: torch.device, network: nn.Module) -> Iterator[None]:
    """The network on that device, and back on the CPU afterwards."""
    network.to(device)
    try:
        yield
    finally:
        network.cpu()


def _noise(setup: Setup, codec: Codec, index: Tensor) -> Latent:
    """Standard normal latents."""
    return normal("rehearsal", (index,), setup.latent_shape(codec))


def _with_noise(setup: Setup, codec: Codec, blank: AuditedSamples) -> AuditedSamples:
    """Blank samples with noise for all that is measured of them."""
    index, latent = blank.sample_index, _noise(setup, codec, blank.sample_index)
    noise = uniform("rehearsal", (index,), ())
    columns: dict[str, Tensor | None] = {"latent": latent, "deviation": latent.std(0), "complexity": noise.double()}
    if blank.influence is not None:
        columns |= {"influence": latent.exp(), "reconstruction_error": noise}
        if setup.distortion is not None:
            columns["distortion"] = noise.double()
    return blank.with_columns(**columns)


def _few(samples: AuditedSamples, count: int) -> AuditedSamples:
    """The first so many of each side of each half; where images have groups, of as many groups as can be."""
    unit = torch.arange(len(samples)) if samples.group is None else samples.group.cpu()
    is_repeated = torch.ones(len(samples), dtype=torch.bool)
    is_repeated[torch.from_numpy(np.unique(unit.numpy(), return_index=True)[1])] = False
    kept = torch.zeros(len(samples), dtype=torch.bool)
    for half in (samples.is_calibration, ~samples.is_calibration):
        for side in (samples.is_member, ~samples.is_member):
            place = (half & side).nonzero().flatten()
            kept[place[is_repeated[place].to(torch.uint8).argsort(stable=True)[:count]]] = True
    return samples.rows(kept)


def _smooth_decoder(latent: Latent) -> Tensor:
    """A stand-in for a decoder: smooth, every image its own latent's, twice as large."""
    return torch.tanh(latent).repeat_interleave(2, -1).repeat_interleave(2, -2)
