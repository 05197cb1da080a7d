"""The channel map of an autoencoder's own config."""

import pytest
import torch

from ldm_privacy.errors import UserError
from ldm_privacy.models.identity import IdentityCodec
from ldm_privacy.models.kl import KLCodec
from ldm_privacy.registry import CHANNEL_MAPS


def test_it_is_what_the_config_says_whatever_the_latents():
    codec = KLCodec.build(image_channels=3, resolution=8, block_out_channels=(8, 8), norm_num_groups=4)
    means = torch.randn(5, 4, 4, 4, generator=torch.Generator().manual_seed(0)) * 7 + 3
    found = CHANNEL_MAPS.get("diffusers")(means, codec)
    torch.testing.assert_close(found(means), means * 0.18215)
    codec.network.register_to_config(scaling_factor=1.5, shift_factor=0.25)
    torch.testing.assert_close(CHANNEL_MAPS.get("diffusers")(means, codec)(means), (means - 0.25) * 1.5)


def test_a_codec_without_such_a_config_is_refused():
    with pytest.raises(UserError, match=r"^denoiser\.channel_map: diffusers is for AutoencoderKL; this codec is identity\.$"):
        CHANNEL_MAPS.get("diffusers")(torch.zeros(2, 1, 8, 8), IdentityCodec(image_channels=1))
