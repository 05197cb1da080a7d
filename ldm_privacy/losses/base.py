"""What a loss of stage 1 is, and what it looks at."""

from typing import NamedTuple

from torch import Tensor

from ldm_privacy.types import Image


class Autoencoded(NamedTuple):
    """A batch on its way through the autoencoder.

    Attributes:
        image: What went in.
        mean, log_variance: Of the posterior, (batch, latent channels, height, width).
        output: The decoded sample of the posterior, like `image`.
    """

    image: Image
    mean: Tensor
    log_variance: Tensor
    output: Image


class CodecLoss:
    """A term of stage 1's loss: weight * value. A subclass writes `__call__`.

    Args:
        weight: At least 0.
    """

    def __init__(self, *, weight: float = 1.0):
        self.weight = weight

    def __call__(self, batch: Autoencoded) -> Tensor:
        """The value, a scalar that gradients flow through."""
        raise NotImplementedError
