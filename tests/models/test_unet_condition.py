"""The UNet that attends to captions: what is asked for is what is built."""

import pytest
import torch

from ldm_privacy.errors import UserError
from ldm_privacy.models.unet_condition import unet_condition

SMALL = {"latent_channels": 3, "latent_size": 8, "block_out_channels": (8, 8), "norm_num_groups": 4, "num_heads": 2}


def built(**options):
    return unet_condition(**{**SMALL, "cross_attention_dim": 6, **options})


def test_settings_reach_the_network():
    network = built(layers_per_block=1, attention=[False, True], dropout=0.2)
    config = network.config
    assert (config["sample_size"], config["in_channels"], config["out_channels"]) == (8, 3, 3)
    assert (tuple(config["block_out_channels"]), config["layers_per_block"], config["norm_num_groups"]) == ((8, 8), 1, 4)
    assert tuple(config["down_block_types"]) == ("DownBlock2D", "CrossAttnDownBlock2D")
    assert tuple(config["up_block_types"]) == ("CrossAttnUpBlock2D", "UpBlock2D"), "from the coarsest resolution back"
    assert (config["dropout"], config["cross_attention_dim"]) == (0.2, 6)
    attentions = [layer for layer in network.modules() if type(layer).__name__ == "Attention"]
    assert attentions
    assert {layer.heads for layer in attentions} == {2}, "the number of heads, whatever diffusers calls it"
    with torch.device("meta"):
        config = unet_condition(latent_channels=4, latent_size=8, cross_attention_dim=768).config
    assert {*config["down_block_types"], *config["up_block_types"]} == {"CrossAttnDownBlock2D", "CrossAttnUpBlock2D"}


def test_the_answer_has_the_latents_shape_and_the_caption_counts():
    torch.manual_seed(0)
    network, latent, timestep = built(), torch.randn(2, 3, 8, 8), torch.tensor([3, 700])
    told = torch.randn(2, 5, 6)
    one, other = (
        network(latent, timestep, encoder_hidden_states=each).sample
        for each in (told, told * torch.tensor([1, 2])[:, None, None])
    )
    assert one.shape == latent.shape
    torch.testing.assert_close(one[0], other[0])
    assert not torch.allclose(one[1], other[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cross_attention_dim": None}, r"^denoiser\.network: 'unet_condition' attends to captions: set denoiser\.condition="),
        (
            {"latent_size": 5},
            r"^denoiser\.network\.block_out_channels: \[8, 8\] halves the latent 1 times, but its size is 5\.",
        ),
        ({"block_out_channels": (8, 6)}, r"^denoiser\.network\.block_out_channels: 6 is not a multiple of .* = 4\.$"),
        ({"attention": [True]}, r"^denoiser\.network\.attention: 1 entries for 2 block_out_channels\.$"),
        ({"num_heads": 3}, r"^denoiser\.network\.num_heads: 3 doesn't divide 8 of block_out_channels, which attends\.$"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_key(options, message):
    with pytest.raises(UserError, match=message):
        built(**options)


def test_heads_need_not_fit_where_nothing_attends():
    built(block_out_channels=(4, 12), num_heads=6, attention=[False, True])
