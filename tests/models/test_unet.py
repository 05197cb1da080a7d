"""The UNet denoiser: what is asked for is what is built."""

import pytest
import torch

from ldm_privacy.config import compose
from ldm_privacy.errors import UserError
from ldm_privacy.models.unet import unet


def built(**options):
    return unet(**{"latent_channels": 3, "latent_size": 8, "block_out_channels": (8, 8), "norm_num_groups": 4, **options})


def test_settings_reach_the_network():
    config = built(
        layers_per_block=1, attention=[False, True], mid_block_attention=True, dropout=0.2, num_class_embeds=5
    ).config
    assert (config["sample_size"], config["in_channels"], config["out_channels"]) == (8, 3, 3)
    assert (tuple(config["block_out_channels"]), config["layers_per_block"], config["norm_num_groups"]) == ((8, 8), 1, 4)
    assert tuple(config["down_block_types"]) == ("DownBlock2D", "AttnDownBlock2D")
    assert tuple(config["up_block_types"]) == ("AttnUpBlock2D", "UpBlock2D"), "from the coarsest resolution back"
    assert (config["add_attention"], config["dropout"], config["num_class_embeds"]) == (True, 0.2, 5)


def test_where_nothing_is_said_there_is_neither_attention_nor_dropout_nor_a_class():
    with torch.device("meta"):
        config = unet(latent_channels=4, latent_size=8).config
    assert (tuple(config["block_out_channels"]), config["layers_per_block"], config["norm_num_groups"]) == (
        (128, *[256] * 3),
        2,
        32,
    )
    assert {*config["down_block_types"], *config["up_block_types"]} == {"DownBlock2D", "UpBlock2D"}
    assert (config["add_attention"], config["dropout"], config["num_class_embeds"]) == (False, 0.0, None)


def test_the_published_network_of_pixel_space_is_built_to_the_parameter():
    component = compose("cifar10_pixels.yaml").config.denoiser.network
    with torch.device("meta"):
        network = component.build(latent_channels=3, latent_size=32)
    assert sum(parameter.numel() for parameter in network.parameters()) == 35_746_307
    heads = {name: module.heads for name, module in network.named_modules() if hasattr(module, "heads")}
    assert set(heads.values()) == {1}, "one head of all channels, as in the published code"
    assert sorted(name.split(".attentions")[0] for name in heads) == ["down_blocks.1"] * 2 + ["mid_block"] + ["up_blocks.2"] * 3


def test_heads_are_of_eight_channels_where_nothing_is_said():
    attentions = [module for module in built(attention=[True, True]).modules() if hasattr(module, "heads")]
    assert {module.heads for module in attentions} == {1}
    attentions = [module for module in built(attention=[True, True], head_channels=2).modules() if hasattr(module, "heads")]
    assert {module.heads for module in attentions} == {4}


def test_the_answer_has_the_latents_shape_and_the_condition_counts():
    torch.manual_seed(0)
    network, latent, timestep = built(num_class_embeds=3), torch.randn(2, 3, 8, 8), torch.tensor([3, 700])
    one, other = (network(latent, timestep, class_labels=torch.tensor(labels)).sample for labels in ([0, 1], [0, 2]))
    assert one.shape == latent.shape
    torch.testing.assert_close(one[0], other[0])
    assert not torch.allclose(one[1], other[1])


@pytest.mark.parametrize("num_blocks", [1, 2, 3])
def test_latents_are_halved_as_often_as_they_can_be(num_blocks):
    blocks = (4,) * num_blocks
    for times in (1, 3):
        size = times * 2 ** (num_blocks - 1)
        assert built(latent_size=size, block_out_channels=blocks).config["sample_size"] == size
        if num_blocks > 1:
            with pytest.raises(UserError, match=rf"halves the latent {num_blocks - 1} times, but its size is {size + 1}\."):
                built(latent_size=size + 1, block_out_channels=blocks)


def test_what_does_not_fit_is_refused_by_its_key():
    with pytest.raises(UserError, match=r"^denoiser\.network\.attention: 1 entries for 2 block_out_channels\.$"):
        built(attention=[True])
    with pytest.raises(UserError, match=r"^denoiser\.network\.block_out_channels: 6 is not a multiple of .* = 4\.$"):
        built(block_out_channels=(8, 6))


@pytest.mark.parametrize(
    ("head_channels", "options"),
    [(6, {"attention": [True, False]}), (100, {"mid_block_attention": True}), (8, {"attention": [False, True]})],
)
def test_heads_that_do_not_divide_the_channels_of_a_block_that_attends_are_refused(head_channels, options):
    told = rf"^denoiser\.network\.head_channels: {head_channels} doesn't divide (8|12) of block_out_channels, which attends\.$"
    with pytest.raises(UserError, match=told):
        built(block_out_channels=(8, 12), head_channels=head_channels, **options)
    built(block_out_channels=(8, 12), head_channels=head_channels)
    built(block_out_channels=(8, 12), head_channels=None, **options)
