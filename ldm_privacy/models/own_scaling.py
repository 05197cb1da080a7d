"""Channel map: the scaling that an autoencoder's own config states, as diffusers' pipelines and training scripts apply it."""

from torch import Tensor

from ldm_privacy.errors import UserError
from ldm_privacy.models.channel_map import ChannelMap
from ldm_privacy.models.codec import Codec
from ldm_privacy.models.kl import KLCodec, scaling_of
from ldm_privacy.registry import CHANNEL_MAPS


@CHANNEL_MAPS.register("diffusers")
def diffusers_scaling(means: Tensor, codec: Codec) -> ChannelMap:
    """(mean - shift_factor) * scaling_factor, or by channel: see `KLCodec.scaled`. Nothing is fitted.

    Args:
        means: Not looked at.
        codec: UserError where it has no config of an AutoencoderKL.
    """
    if not isinstance(codec, KLCodec):
        raise UserError(f"denoiser.channel_map: diffusers is for AutoencoderKL; this codec is {codec.name}.")
    return scaling_of(codec.network.config)
