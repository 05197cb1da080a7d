"""Every mistake that can be found without training, found before a run folder is made."""

import torch
from torch import nn

from ldm_privacy.audit.checks import check_labels, refuse_influence
from ldm_privacy.audit.samples import check_halves, is_calibration
from ldm_privacy.calibrations.base import check_halves_suffice
from ldm_privacy.errors import UserError, under
from ldm_privacy.geometry.masks import num_kept
from ldm_privacy.losses.base import last_weight
from ldm_privacy.models.codec import Codec
from ldm_privacy.models.kl import KLCodec
from ldm_privacy.plugins import blamed_on
from ldm_privacy.randomness import normal
from ldm_privacy.recipes.launch import check_processes
from ldm_privacy.recipes.rehearsal import rehearse_training
from ldm_privacy.recipes.run_setup import RunSetup
from ldm_privacy.recipes.setup import Setup
from ldm_privacy.registry import CODECS, LOGGERS
from ldm_privacy.runs.folder import check_name
from ldm_privacy.targets.denoiser import Denoiser
from ldm_privacy.targets.record import check_plain
from ldm_privacy.training.per_sample import check_per_sample_gradients


def check_audit(setup: Setup) -> None:
    """Raise UserError for whatever the audit's sections get wrong that their types don't show."""
    config = setup.config
    check_labels(config.audit.attacks, config.audit.masks, config.audit.calibrations)
    _ = setup.device, setup.onset_key, setup.timesteps, setup.data
    if config.audit.precision == "bfloat16" and setup.device.type == "cpu":
        raise UserError("audit.precision: bfloat16 is for GPUs; on a CPU use float32.")
    if not config.audit.target_fprs:
        raise UserError("audit.target_fprs: empty; name at least one false positive rate, such as 0.01.")
    for label, attack in setup.attacks.items():
        try:
            with blamed_on(attack):
                attack.grid(setup.timesteps, setup.num_train_timesteps)
        except UserError as error:
            raise UserError(under(f"audit.attacks.{label}", str(error), ())) from None
    _ = setup.masks, setup.influence, setup.calibrated
    group = setup.data.groups(setup.audited_index)
    half = is_calibration(setup.audited_index, group=group)
    check_halves(half, setup.audited_members, group)
    if setup.calibrations:
        check_halves_suffice(half, setup.audited_members, cross_fit=config.audit.cross_fit)


def check_losses(setup: RunSetup, codec: Codec) -> None:
    """Raise UserError for a loss of stage 1 that can't be computed, or never is."""
    batches = setup.autoencoder_batches
    num_steps = setup.codec_epochs * len(batches)
    for label, loss in setup.losses.items():
        key = f"autoencoder.losses.{label}"
        needs = [
            ("a decoder", loss.needs_decoder, getattr(codec.network, "decoder", None)),
            ("the decoder's last convolution", loss.needs_last_layer, last_weight(codec.network)),
        ]
        for what, is_needed, found in needs:
            if is_needed and found is None:
                raise UserError(f"{key}: it needs {what}, and the codec '{codec.name}' has none; take it out with {key}=null.")
        if loss.needs_reconstruction and not any(
            each.is_reconstruction and each.weight and each.is_always_due for each in setup.losses.values()
        ):
            raise UserError(
                f"{key}: its weight is relative to the reconstruction losses', and none of a weight above 0 is computed in "
                f"every step; add one, such as l1, or take this out with {key}=null."
            )
        if loss.first_step >= num_steps:
            raise UserError(f"{key}.first_step: {loss.first_step:,}, but stage 1 has {num_steps:,} steps; use a lower one.")
        if loss.share * batches[0] < 0.5:
            raise UserError(
                f"{key}.share: {loss.share:g} of a batch of {batches[0]} is no sample; use at least {1 / batches[0]:.2g}."
            )
    if setup.losses and not any(loss.is_always_due for loss in setup.losses.values()):
        raise UserError("autoencoder.losses: none of them is computed in every step; one needs first_step 0 and every 1.")


def check_geometry(setup: Setup, codec: Codec) -> None:
    """Raise UserError for what is asked of a decoder's geometry that there isn't; no images are needed to know it."""
    rank = setup.config.geometry.distortion_rank
    if codec.network is None:
        refuse_influence(setup.masks)
        if rank:
            raise UserError(
                f"geometry.distortion_rank: the codec '{codec.name}' has no decoder that could distort; use "
                "geometry.distortion_rank=0."
            )
        return
    num_dimensions = setup.latent_shape(codec).numel()
    if rank > num_dimensions:
        raise UserError(
            f"geometry.distortion_rank: {rank} singular values, but a latent has {num_dimensions} dimensions. Use at most so "
            "many, or 0 for no distortion."
        )
    if (fraction := getattr(setup.influence, "keep_fraction", None)) is not None:
        try:
            num_kept(num_dimensions, fraction)
        except UserError as error:
            raise UserError(f"geometry.influence.{error}") from None


def check_codec(setup: RunSetup, codec: Codec) -> None:
    """Raise UserError for what is asked of the codec that it can't do; no images are needed to know it."""
    config, name = setup.config, codec.name
    check_geometry(setup, codec)
    if codec.network is None and config.denoiser.channel_map.name != "none":
        raise UserError(f"denoiser.channel_map: the codec '{name}' has none; use denoiser.channel_map=none.")
    if setup.is_tuned and config.denoiser.channel_map.name not in ("auto", "diffusers"):
        raise UserError(
            f"denoiser.channel_map: {config.denoiser.channel_map.name}, but a base goes on with the latents that it was "
            "trained on; use denoiser.channel_map=diffusers."
        )
    if setup.is_tuned and setup.codec_epochs:
        raise UserError("autoencoder.max_epochs: a base goes on with its own autoencoder; use autoencoder.max_epochs=0.")
    if setup.is_tuned and config.denoiser.condition.arguments.get("encoder") != "base":
        raise UserError(
            "denoiser.condition: a base goes on with its own text encoder; use denoiser.condition.class=captions "
            "denoiser.condition.encoder=base."
        )
    if config.denoiser.adapter.rank is not None and not setup.is_tuned:
        raise UserError(
            "denoiser.adapter: a LoRA changes a denoiser that was trained before; set denoiser.network.class=pretrained and "
            "base=FOLDER, or denoiser.adapter.rank=null."
        )
    if setup.codec_epochs and not isinstance(codec, KLCodec):
        raise UserError(f"autoencoder.max_epochs: the codec '{name}' is not trained; use autoencoder.max_epochs=0.")
    if setup.codec_epochs and not config.autoencoder.losses:
        raise UserError("autoencoder.losses: name at least one loss to train the autoencoder with.")
    if codec.network is None and config.autoencoder.losses:
        without = " ".join(f"autoencoder.losses.{label}=null" for label in config.autoencoder.losses)
        raise UserError(f"autoencoder.losses: the codec '{name}' is not trained; use {without}.")


def check_training(setup: RunSetup, codec: Codec, network: nn.Module, denoiser: Denoiser) -> None:
    """Raise UserError for whatever can be found wrong without training."""
    config = setup.config
    with blamed_on(codec):
        stored = {"class": None, **codec.record()}
    check_name(config.name)
    for each, where in (
        (stored, "autoencoder.network"),
        (denoiser.network, "denoiser.network"),
        (denoiser.condition, "denoiser.condition"),
        (config.geometry.influence.arguments, "geometry.influence"),
    ):
        check_plain(each, where)
    if stored["class"] not in CODECS:
        raise UserError(f"autoencoder.network: the codec calls itself '{stored['class']}', which is no registered name.")
    for name in config.loggers:
        try:
            LOGGERS.get(name)
        except UserError as error:
            raise UserError(f"loggers: {error}") from None
    blank = setup.blank_samples(codec)
    setup.audit(blank, whose_reference=setup.whose_reference)
    if setup.codec_epochs and config.autoencoder.train_on == "public" and not len(setup.data.split.public_index):
        raise UserError("autoencoder.train_on: 'public' needs public images; set data.num_public.")
    if setup.codec_epochs:
        check_losses(setup, codec)
    if "memorization" in config.watch:
        raise UserError("watch: the label 'memorization' is taken by the audits.")
    losses = config.watch.get("loss_gap")
    if config.audit.stop.at is not None and (losses is None or losses.name != "loss_gap"):
        raise UserError("audit.stop: it keeps the checkpoint of lowest held-out loss, which watch.loss_gap measures; add that.")
    # Several processes cut a step into graphs between which gradients travel; replaying them has known faults.
    if config.trainer.compile == "reduce-overhead" and config.trainer.devices * config.trainer.num_nodes > 1:
        raise UserError("trainer.compile: reduce-overhead is for one device; use default with several.")
    most = min(len(setup.audited_index), len(setup.data.split.member_index))
    check_processes(setup.device.type, config.trainer.devices, config.trainer.num_nodes, most=most)
    if setup.privacy is not None:
        index = setup.audited_index[:2]
        latent = normal("private", (index,), setup.latent_shape(codec), setup.device)
        timestep = torch.tensor([0, len(denoiser.alphas_cumprod) - 1], device=setup.device)
        told = {name: value.to(setup.device) for name, value in setup.condition(index).items()}
        check_per_sample_gradients(network, latent, timestep, setup.condition.given(told))
    rehearse_training(setup, codec, network, denoiser)
