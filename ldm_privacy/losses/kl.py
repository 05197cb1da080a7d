"""KL: how far the posterior is from a standard normal distribution."""

from torch import Tensor

from ldm_privacy.losses.base import Autoencoded, CodecLoss
from ldm_privacy.registry import LOSSES


@LOSSES.register("kl")
class KL(CodecLoss):
    """KL(posterior || N(0, I)), averaged over all latent numbers (Rao, Qu, Moyer, 2511.20592).

    `mean of (mu^2 + sigma^2 - 1 - ln sigma^2) / 2`.
    """

    compiles = True

    def __call__(self, batch: Autoencoded) -> Tensor:
        mean, log_variance = batch.mean, batch.log_variance
        return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
