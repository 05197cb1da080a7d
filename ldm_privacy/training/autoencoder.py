"""Stage 1: the KL autoencoder."""

from collections.abc import Mapping
from typing import Any, Unpack

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from ldm_privacy.data.bounded import Pixels
from ldm_privacy.data.images import to_float
from ldm_privacy.errors import UserError, reason_of
from ldm_privacy.losses.base import Autoencoded, CodecLoss, last_weight
from ldm_privacy.processes import share_of
from ldm_privacy.randomness import derive_seed
from ldm_privacy.training.stepwise import Steps, StepwiseModule
from ldm_privacy.types import Image, Latent


class AutoencoderModule(StepwiseModule):
    """Trains an AutoencoderKL: the sum of its losses, each as it is weighted.

    The latent is sampled from the posterior; noise and flips of a step come from (seed, epoch, step), what a loss draws from
    (seed, its label, step), so that one more loss changes neither. A loss is logged over the steps in which it is computed. A
    network that a loss trains itself lies in the checkpoint, under "losses".

    Args:
        autoencoder: The network; put in training mode.
        images: (samples, image_channels, height, width) uint8, the images to train on; moved to the device once. `Pixels` that
            don't fit in memory are decoded a batch at a time, and a step waits for them.
        losses: By label; each is logged under it.
        flip: Mirror each image with probability 1/2.
        steps: See `StepwiseModule`. Where a loss needs gradients at the decoder's last layer the encoder alone is compiled.
    """

    def __init__(
        self,
        autoencoder: AutoencoderKL,
        images: Tensor | Pixels,
        losses: Mapping[str, CodecLoss],
        *,
        flip: bool = True,
        **steps: Unpack[Steps],
    ):
        super().__init__(stage="autoencoder", num_samples=len(images), **steps)
        self.autoencoder = autoencoder.train().requires_grad_(True)
        self.lay_out(autoencoder)
        self.images, self.losses, self.flip = images, dict(losses), flip
        self._within = {label: loss for label, loss in self.losses.items() if loss.is_within}
        self._looked_at: dict[str, Autoencoded] = {}
        self._encode, self._step = self._encoded, self._autoencoded

    def on_fit_start(self) -> None:
        self.images = self.images.to(self.device)
        for loss in self.losses.values():
            loss.to(self.device)
        if any(loss.needs_last_layer for loss in self.losses.values()):
            self._encode = self.compiled(self._encoded)
        else:
            self._step = self.compiled(self._autoencoded)

    def on_fit_end(self) -> None:
        self.lay_out(self.autoencoder, channels_last=False)  # as it is stored, and as a stored one is loaded

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["losses"] = {label: loss.state_dict() for label, loss in self.losses.items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        for label, loss in self.losses.items():
            try:
                loss.load_state_dict(checkpoint["losses"][label])
            except UserError as error:
                raise UserError(f"autoencoder.losses.{label}: {error}") from None
            except (KeyError, TypeError, ValueError, RuntimeError) as error:
                raise UserError(
                    f"autoencoder.losses.{label}: what the checkpoint holds of it can't be used ({reason_of(error)}). Use "
                    "another one."
                ) from error

    def loss(self, indices: Tensor) -> dict[str, Tensor]:
        """One encoder and one decoder pass, forward and backward, and what the losses cost beside them."""
        count = len(indices)
        image = to_float(self.images[self.share(indices).to(self.images.device)].to(self.device))
        if self.flip:
            mirrored = self.share(torch.rand(count, 1, 1, 1, device=image.device)) < 0.5
            image = torch.where(mirrored, image.flip(-1), image)
        settings = self.autoencoder.config
        factor = 2 ** (len(settings["block_out_channels"]) - 1)
        shape = (count, settings["latent_channels"], image.shape[2] // factor, image.shape[3] // factor)
        noise = self.share(torch.randn(shape, device=image.device))
        mean, log_variance, output, *within = self._step(self.autoencoder, image, noise)
        weight, step = _share_of(count), self.global_step
        parts = (image, mean, log_variance, output, self._decoded, last_weight(self.autoencoder), step)
        whole = Autoencoded(*parts, weight=weight)
        self._looked_at = {
            label: whole if label in self._within else self._part(label, whole, count)
            for label, loss in self.losses.items()
            if loss.is_due(step)
        }
        values = dict(zip(self._within, within))
        for label, batch in self._looked_at.items():
            if label not in values:
                values[label] = _rescaled(self.losses[label](batch), batch.weight, weight)
        reconstruction = weight * torch.as_tensor(
            sum(self.losses[label].weight * value for label, value in values.items() if self.losses[label].is_reconstruction)
        )
        total = torch.zeros(())
        told: dict[str, Tensor] = {}
        for label, batch in self._looked_at.items():
            loss = self.losses[label]
            total = total + loss.weighted(values[label], batch._replace(weight=weight), reconstruction)
            told |= {f"{label}_{name}": value for name, value in loss.told.items()}
        return {"loss": total, **values, **told}

    def optimizer_step(self, *arguments: Any, **options: Any) -> None:
        super().optimizer_step(*arguments, **options)
        # Here, not at the end of the batch: a checkpoint that is stored there must hold what was learned.
        with self.trainer.precision_plugin.forward_context():
            self.teach()

    def teach(self) -> None:
        """A step of the networks that losses train themselves, on the batch that the autoencoder has just learned from."""
        for label, batch in self._looked_at.items():
            learned = self.losses[label].learn(batch.detached())
            self.note({f"{label}_{name}": value for name, value in learned.items()}, batch.weight)
        self._looked_at = {}

    def _part(self, label: str, whole: Autoencoded, count: int) -> Autoencoded:
        """What the loss of that label looks at, of this process's share of a batch of `count` samples."""
        mine, chosen = share_of(count), self.losses[label].num_rows(count)
        first, last = (-(-place * chosen // count) for place in (mine.start, mine.stop))
        weight, device = (last - first) / chosen, whole.image.device
        # Those at i * count // chosen, evenly spread; where none of them is here, one that counts for nothing.
        place = torch.arange(first, max(last, first + 1), device=device) % chosen
        seed = derive_seed(f"loss {label}", self.seed, whole.step)
        whole = whole._replace(seed=seed, place=place, num_samples=chosen, weight=weight)
        if chosen == count:
            return whole
        rows = (place * count // chosen - mine.start).clamp(0, len(whole.image) - 1)
        return whole.rows(rows)

    def _encoded(self, autoencoder: AutoencoderKL, image: Image, noise: Tensor) -> tuple[Tensor, Tensor, Latent]:
        """Mean and log variance of the posterior, and its sample: mean + standard deviation * noise."""
        posterior = autoencoder.encode(image).latent_dist
        mean, log_variance = posterior.mean.to(image), posterior.logvar.to(image)
        return mean, log_variance, mean + (0.5 * log_variance).exp() * noise

    def _autoencoded(self, autoencoder: AutoencoderKL, image: Image, noise: Tensor) -> tuple[Tensor, ...]:
        """Mean, log variance and output, and the losses that are part of every step, of the whole of it."""
        mean, log_variance, latent = self._encode(autoencoder, image, noise)
        output = autoencoder.decode(latent).sample.to(image)
        batch = Autoencoded(image, mean, log_variance, output, seed=None)
        return mean, log_variance, output, *(loss(batch) for loss in self._within.values())

    def _decoded(self, latent: Latent) -> Image:
        return self.autoencoder.decode(latent).sample.to(latent)


def _share_of(count: int) -> float:
    """This process's share of so many samples."""
    mine = share_of(count)
    return (mine.stop - mine.start) / count


def _rescaled(value: Tensor, weight: float, other: float) -> Tensor:
    """A value that counts with one weight, as one that counts with another."""
    return value if weight == other else value * (weight / other if other else 0.0)
