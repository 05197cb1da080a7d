"""Stage 1: the autoencoder."""

from diffusers import AutoencoderKL
from lightning.pytorch import Callback

from callbacks.checkpoints import RunCheckpoint
from callbacks.nonfinite import StopOnNonFiniteLoss
from callbacks.progress import ProgressBar
from callbacks.runner import Runner
from ldm_privacy.models import pretrained_autoencoder, save_autoencoder
from ldm_privacy.report.terminal import console
from ldm_privacy.training.processes import is_main


def train_autoencoder(runner: Runner) -> AutoencoderKL:
    """Train (or load) the autoencoder; from then on it lies in the run folder as a diffusers folder."""
    experiment, run = runner.experiment, runner.run
    config = experiment.config
    if run.autoencoder.is_dir():
        return pretrained_autoencoder(
            path=str(run.autoencoder), image_channels=config.data.channels, resolution=config.data.resolution
        )
    if config.autoencoder.max_epochs == 0:
        autoencoder = experiment.build_autoencoder()
    else:
        module = experiment.autoencoder_module()
        resumed = runner.resume_point(run.autoencoder_last, "autoencoder")
        bar = ProgressBar("autoencoder", console)
        callbacks: list[Callback] = [
            bar,
            StopOnNonFiniteLoss(run.autoencoder_last, "autoencoder.learning_rate"),
            RunCheckpoint(
                run.autoencoder_last,
                experiment.record("autoencoder", runner.composed.to_yaml()),
                every_n_minutes=config.trainer.checkpoint_every_n_minutes,
                is_due=lambda epoch: epoch == config.autoencoder.max_epochs,
                say=bar.say,
            ),
        ]
        last = run.autoencoder_last
        runner.fit(module, callbacks, max_epochs=config.autoencoder.max_epochs, resumed=resumed, last=last)
        loss = module.epoch_means.get("autoencoder/train_reconstruction")
        if loss is not None:
            console.print(f"Autoencoder trained: reconstruction loss {loss:.4f}.", highlight=False)
        autoencoder = module.autoencoder.cpu()
    if is_main():
        temporary = run.autoencoder.with_name("autoencoder.tmp")
        save_autoencoder(autoencoder, temporary)
        temporary.rename(run.autoencoder)
    return autoencoder
