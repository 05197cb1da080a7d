"""A channel map after which channels are uncorrelated."""

import torch
from torch import Tensor

from ldm_privacy.models.channel_map import ChannelMap, power_of
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
    values = means.double().transpose(0, 1).flatten(1)
    matrix = power_of(torch.cov(values).reshape(len(values), -1), -0.5, what="variance of the latents")
    return ChannelMap("whitening", values.mean(1).float(), matrix.float())
