"""What a loss of stage 1 is, and what it looks at."""

from typing import Annotated, Any, ClassVar, NamedTuple

import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from ldm_privacy.processes import add_up
from ldm_privacy.randomness import normal, uniform
from ldm_privacy.types import Decoder, Image

Weight = Annotated[float, Field(ge=0)]
ShareOfBatch = Annotated[float, Field(gt=0, le=1)]


class Autoencoded(NamedTuple):
    """The samples of a batch that a loss looks at, on their way through the autoencoder.

    Several processes have some of them each; what is drawn belongs to their places in the whole batch, and to the loss alone.
    All numbers are in the image's dtype, float32 in a run, whatever the precision of the networks.

    Attributes:
        image: What went in.
        mean, log_variance: Of the posterior, (batch, latent channels, height, width).
        output: The decoded sample of the posterior, like `image`.
        decode: The decoder, from means to images; differentiable in both and in its weights, twice.
        last_weight: Of the decoder's last convolution.
        step: Steps of the stage before this one.
        seed: Of the draws of this loss in this step; None: it draws nothing.
        place: (batch,) int64, of these samples among those of all processes; None: 0, 1, ...
        num_samples: In all processes; None: as many as here.
        weight: Share of them that is here, so that mean values times it add up over the processes.
    """

    image: Image
    mean: Tensor
    log_variance: Tensor
    output: Image
    decode: Decoder | None = None
    last_weight: Tensor | None = None
    step: int = 0
    seed: int | None = 0
    place: Tensor | None = None
    num_samples: int | None = None
    weight: float = 1.0

    @property
    def places(self) -> Tensor:
        """(batch,) int64."""
        return torch.arange(len(self.image), device=self.image.device) if self.place is None else self.place

    @property
    def _drawn(self) -> int:
        if self.seed is None:
            raise ValueError("a loss that draws can't be part of the compiled step: leave `compiles` False")
        return self.seed

    def rows(self, rows: Tensor) -> "Autoencoded":
        """Some of the samples that are here."""
        return self._replace(
            image=self.image[rows], mean=self.mean[rows], log_variance=self.log_variance[rows], output=self.output[rows]
        )

    def detached(self) -> "Autoencoded":
        """Without gradients."""
        return self._replace(mean=self.mean.detach(), log_variance=self.log_variance.detach(), output=self.output.detach())

    def normal(self, purpose: str, like: Tensor) -> Tensor:
        """Standard normal numbers of the shape of `like`, (batch, ...)."""
        return normal(purpose, (self._drawn, self.places), like.shape[1:], like.device).to(like)

    def uniform(self, purpose: str, like: Tensor) -> Tensor:
        """A number in (0, 1) for each sample, (batch, 1, 1, 1)."""
        return uniform(purpose, (self._drawn, self.places), (1, 1, 1), like.device).to(like)

    def over_all(self, mean: Tensor) -> Tensor:
        """A mean over the samples here as that over the samples of all processes; its gradient is that of the part here."""
        whole = self.weight * mean.detach()
        add_up([whole])
        return mean + (whole - mean.detach())

    def of_all(self, value: Tensor) -> Tensor:
        """(num_samples, ...): the rows of all processes, of what has a row for each sample here; without gradient."""
        rows = value.new_zeros(self.num_samples or len(value), *value.shape[1:])
        if self.weight:
            rows[self.places] = value.detach()
        add_up([rows])
        return rows


class CodecLoss:
    """A term of stage 1's loss: weight * value. A subclass writes `__call__`.

    Args:
        weight: At least 0.
        first_step: Steps of stage 1 in which it is not computed; a step without it counts 0.
        every: It is computed in every so manieth step from the first on.
        share: Of each batch that it looks at, evenly spread; at least one sample.

    Attributes:
        is_reconstruction: It says how far the output is from the image; what others are weighted against.
        needs_decoder: It decodes, with `decode`.
        needs_last_layer: It looks at gradients at `last_weight`.
        needs_reconstruction: Its weight comes from the reconstruction losses, so one of them must count in every step.
        compiles: It is arithmetic of image, posterior and output alone, which can be part of the compiled step; else it runs
            beside that.
        told: Further numbers of the newest step by name, which are logged as "<label>_<name>".
    """

    is_reconstruction: ClassVar[bool] = False
    needs_decoder: ClassVar[bool] = False
    needs_last_layer: ClassVar[bool] = False
    needs_reconstruction: ClassVar[bool] = False
    compiles: ClassVar[bool] = False

    def __init__(
        self, *, weight: Weight = 1.0, first_step: NonNegativeInt = 0, every: PositiveInt = 1, share: ShareOfBatch = 1.0
    ):
        self.weight, self.first_step, self.every, self.share = weight, first_step, every, share
        self.told: dict[str, Tensor] = {}

    def __call__(self, batch: Autoencoded) -> Tensor:
        """The value, a scalar that gradients flow through: a mean over the samples."""
        raise NotImplementedError

    def weighted(self, value: Tensor, batch: Autoencoded, reconstruction: Tensor) -> Tensor:
        """What is minimised.

        Args:
            value: Of the batch.
            batch: The batch.
            reconstruction: The weighted sum of all losses that are `is_reconstruction`, of this process: the processes' add up.
        """
        return self.weight * value

    @property
    def passes(self) -> dict[str, tuple[int, int]]:
        """Network, as the plan of a run names it -> passes of each sample that it looks at, beside the step's: with gradients,
        and without.
        """
        return {}

    @property
    def is_always_due(self) -> bool:
        """Whether it is computed in every step."""
        return (self.first_step, self.every) == (0, 1)

    @property
    def is_within(self) -> bool:
        """Whether it is part of the compiled step, which gives it image, posterior and output of all samples, and no more."""
        return self.compiles and not (self.needs_decoder or self.needs_last_layer) and self.is_always_due and self.share == 1

    def is_due(self, step: int) -> bool:
        """Whether it is computed in that step, counted from 0."""
        return step >= self.first_step and (step - self.first_step) % self.every == 0

    def num_rows(self, count: int) -> int:
        """How many of the samples of a batch it looks at."""
        return max(1, round(self.share * count))

    def learn(self, batch: Autoencoded) -> dict[str, Tensor]:
        """A step of a network that it trains itself, after the autoencoder's; returns numbers that are logged like `told`.

        `batch` is that of the step, without gradients; its decoder is as the step left it.
        """
        return {}

    def to(self, device: torch.device | str) -> "CodecLoss":
        """Move what it holds; returns self."""
        return self

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds of it, so that a resumed run goes on exactly: plain values and tensors."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse. Raises UserError where it can't go on from that."""


def last_weight(autoencoder: nn.Module | None) -> Tensor | None:
    """The weight of the decoder's last convolution, `decoder.conv_out`; None where there is none."""
    return getattr(getattr(getattr(autoencoder, "decoder", None), "conv_out", None), "weight", None)
