"""A channel map after which channels are uncorrelated."""

from torch import Tensor

from ldm_privacy.models.channel_map import ChannelMap, channel_moments, power_of
from ldm_privacy.registry import CHANNEL_MAPS


@CHANNEL_MAPS.register("whitening")
def whitening(means: Tensor) -> ChannelMap:
    """latent = C^(-1/2) (mean - shift): over members and positions the channels have mean 0 and the identity for covariance.

    Of all matrices that do this the symmetric one (ZCA) leaves the means nearest to what they were, and it is the only one
    that is unique: eigenvectors of equal variance, or their signs, are anybody's choice, and SimA's fourth powers are not the
    same after a rotation. No network passes. Source: Kessy, Lewin, Strimmer 2018, 1512.00809, table 1.

    Args:
        means: (samples, channels, height, width), the members'.
    """
    mean, covariance = channel_moments(means)
    matrix = power_of(covariance, -0.5, what="variance of the latents")
    return ChannelMap("whitening", mean.float(), matrix.float())
