"""Reconstruction: how far the decoded image is from the image."""

from torch import Tensor

from ldm_privacy.losses.base import Autoencoded, CodecLoss
from ldm_privacy.registry import LOSSES


@LOSSES.register("l1")
class L1(CodecLoss):
    """mean |x' - x| over all pixels (Rao, Qu, Moyer, 2511.20592)."""

    is_reconstruction = compiles = True

    def __call__(self, batch: Autoencoded) -> Tensor:
        return (batch.output - batch.image).abs().mean()


@LOSSES.register("l2")
class L2(CodecLoss):
    """mean (x' - x)^2 over all pixels."""

    is_reconstruction = compiles = True

    def __call__(self, batch: Autoencoded) -> Tensor:
        return (batch.output - batch.image).square().mean()
