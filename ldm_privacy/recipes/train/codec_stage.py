"""Stage 1: the codec."""

from typing import Any

from diffusers import AutoencoderKL

from ldm_privacy.callbacks import ProgressBar, RunCheckpoint, StopOnNonFiniteLoss
from ldm_privacy.errors import UserError
from ldm_privacy.models.codec import Codec
from ldm_privacy.models.kl import KLCodec
from ldm_privacy.models.part import WEIGHTS
from ldm_privacy.models.pretrained import PretrainedCodec
from ldm_privacy.models.weights import load_weights, read_safetensors
from ldm_privacy.processes import is_main
from ldm_privacy.recipes.run_setup import RunSetup
from ldm_privacy.recipes.terminal import console
from ldm_privacy.recipes.train.fitting import Fitting, steps_of
from ldm_privacy.training.autoencoder import AutoencoderModule


def train_codec(setup: RunSetup, fitting: Fitting, codec: Codec, record: dict[str, Any]) -> Codec:
    """The configured codec, trained unless that is done; its autoencoder lies in the run folder from then on.

    Args:
        setup, fitting: Of the run.
        codec: As configured.
        record: Stored in every checkpoint.
    """
    run, config = fitting.run, setup.config
    if run.autoencoder.is_dir():
        assert isinstance(codec, KLCodec)
        codec = _our_own(codec)
        try:
            load_weights(codec.network, read_safetensors(file := run.autoencoder / WEIGHTS), str(file))
        except UserError as error:
            raise UserError(f"resume: {str(error).rstrip('.')}. Delete {run.autoencoder}: it is written again.") from None
        return codec
    if epochs := setup.codec_epochs:
        assert isinstance(codec, KLCodec)
        module, last = stage_1(setup, codec.network), run.autoencoder_last
        for label, loss in module.losses.items():
            if loss.first_step:
                num_steps = epochs * len(setup.autoencoder_batches)
                console.print(f"The loss '{label}' begins at step {loss.first_step:,} of {num_steps:,}.", highlight=False)
        bar = ProgressBar("autoencoder", console)
        checkpoints = RunCheckpoint(
            last,
            {**record, "stage": "autoencoder"},
            every_n_minutes=config.trainer.checkpoint_every_n_minutes,
            is_due=lambda epoch: epoch == epochs,
            say=bar.say,
        )
        callbacks = [bar, StopOnNonFiniteLoss(last, "autoencoder.learning_rate"), checkpoints]
        resumed = fitting.resume_point(last, "autoencoder")
        fitting.fit(module, callbacks, max_epochs=epochs, resumed=resumed, last=last)
        first = next((label for label, loss in module.losses.items() if loss.is_reconstruction), None)
        reached = module.epoch_means.get(f"autoencoder/train_{first}")
        if reached is not None:
            console.print(f"Autoencoder trained: {first} loss {reached:.4f}.", highlight=False)
        module.autoencoder.cpu().eval().requires_grad_(False)
        codec = _our_own(codec)
    if isinstance(codec, PretrainedCodec):
        return codec  # it lies where it was taken from
    if is_main() and isinstance(codec, KLCodec):
        temporary = run.autoencoder.with_name("autoencoder.tmp")
        codec.save(temporary)
        temporary.rename(run.autoencoder)
    return codec


def _our_own(codec: KLCodec) -> KLCodec:
    """Somebody else's autoencoder is ours once it was trained here."""
    return KLCodec(codec.network) if isinstance(codec, PretrainedCodec) else codec


def stage_1(setup: RunSetup, autoencoder: AutoencoderKL) -> AutoencoderModule:
    """Stage 1, ready to fit."""
    config = setup.config
    return AutoencoderModule(
        autoencoder,
        setup.data.by_number(setup.autoencoder_index),
        setup.losses,
        flip=config.data.flip,
        **steps_of(config, config.autoencoder),
    )
