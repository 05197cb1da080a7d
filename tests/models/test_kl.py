"""The KL codec: what is built, which way its numbers go, and in which precision."""

import pytest
import torch
from diffusers import AutoencoderKL

from ldm_privacy.errors import UserError
from ldm_privacy.models.kl import KLCodec, scaling_of
from tests.reference.autoencoders import far_from_zero, grey_images


def built(**options):
    return KLCodec.build(
        **{"image_channels": 1, "resolution": 8, "block_out_channels": (8, 8), "norm_num_groups": 4, **options}
    )


@pytest.mark.parametrize("num_blocks", [1, 2, 3, 4])
def test_each_block_after_the_first_halves_the_sides(num_blocks):
    codec = built(block_out_channels=(4,) * num_blocks, resolution=16)
    image = torch.zeros(2, 1, 16, 16)
    latent = codec.encode(image)
    assert latent.shape[1:] == codec.latent_shape(1, 16) == (4, 2 ** (5 - num_blocks), 2 ** (5 - num_blocks))
    assert codec.decode(latent).shape == image.shape
    if num_blocks > 1:
        odd = 3 * 2 ** (num_blocks - 2)
        with pytest.raises(UserError, match=rf"^data\.resolution: {odd} can't be halved {num_blocks - 1} times"):
            built(block_out_channels=(4,) * num_blocks, resolution=odd)
    assert built(block_out_channels=(4,) * num_blocks, resolution=3 * 2 ** (num_blocks - 1))


def test_what_is_asked_for_is_what_is_built():
    options = {"latent_channels": 3, "layers_per_block": 2, "mid_block_attention": True}
    config = built(image_channels=3, resolution=16, **options).network.config
    assert (config["in_channels"], config["out_channels"], config["sample_size"]) == (3, 3, 16)
    assert (config["latent_channels"], config["layers_per_block"], config["mid_block_add_attention"]) == (3, 2, True)
    assert (tuple(config["block_out_channels"]), config["norm_num_groups"]) == ((8, 8), 4)


def test_a_record_holds_the_settings_alone():
    codec = built()
    config = codec.record()["config"]
    assert not any(key.startswith("_") for key in config), "what diffusers adds, its version among it"
    assert config["block_out_channels"] == [8, 8], "plain lists"
    assert {key: value for key, value in codec.network.config.items() if key in config} == {
        key: tuple(value) if isinstance(value, list) else value for key, value in config.items()
    }


def test_where_nothing_is_said_it_is_that_of_rao_qu_and_moyer():
    config = KLCodec.build(image_channels=3, resolution=32).network.config
    assert (tuple(config["block_out_channels"]), config["norm_num_groups"]) == ((128, 128, 256), 32)
    assert (config["latent_channels"], config["layers_per_block"], config["mid_block_add_attention"]) == (4, 1, False)


def test_groups_that_do_not_divide_the_channels_are_refused_by_their_key():
    with pytest.raises(UserError, match=r"^autoencoder\.network\.block_out_channels: 6 is not a multiple of .* = 4\.$"):
        built(block_out_channels=(8, 6))


def test_without_a_channel_map_latents_are_the_means():
    codec = far_from_zero()
    assert torch.equal(codec.channel_map.matrix, torch.eye(4))
    assert torch.equal(codec.encode(grey_images(2)), codec.mean(grey_images(2)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_answers_have_the_precision_of_the_question_whatever_that_of_the_network(dtype):
    codec, image = far_from_zero(), grey_images(3)
    mean = codec.mean(image.to(dtype))
    assert mean.dtype == codec.encode(image.to(dtype)).dtype == codec.decode(mean).dtype == dtype
    torch.testing.assert_close(mean, codec.network.encode(image).latent_dist.mean.to(dtype), rtol=1e-5, atol=1e-5)


def test_the_decoder_has_a_second_derivative_through_its_attention():
    codec = built(mid_block_attention=True)
    latent = torch.randn(1, 4, 4, 4)
    # J v as the derivative of J^T u, which the fused attention kernel doesn't have.
    _, product = torch.autograd.functional.jvp(codec.decode, latent, torch.ones_like(latent))
    step = codec.decode(latent + 1e-2) - codec.decode(latent - 1e-2)
    torch.testing.assert_close(product, step / 2e-2, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("shift", [None, 0.0, 0.1159])
def test_the_scaling_of_diffusers(shift):
    network = built().network
    network.register_to_config(shift_factor=shift, scaling_factor=0.3611)
    codec, mean = KLCodec.scaled(network), torch.randn(2, 4, 4, 4)
    # As in diffusers' pipelines: (mean - shift_factor) * scaling_factor, and latent / scaling_factor + shift_factor.
    torch.testing.assert_close(codec.channel_map(mean), (mean - (shift or 0)) * 0.3611)
    torch.testing.assert_close(codec.decode(mean), network.decode(mean / 0.3611 + (shift or 0)).sample, rtol=1e-4, atol=1e-5)
    assert codec.channel_map.name == "diffusers"


def test_a_scaling_by_channel_is_that_of_the_pipelines_in_double_precision():
    generator = torch.Generator().manual_seed(0)
    latents_mean, latents_std = (torch.randn(16, generator=generator).double().exp() for _ in range(2))
    stated = {"latent_channels": 16, "latents_mean": latents_mean.tolist(), "latents_std": latents_std.tolist()}
    mean = torch.randn(2, 16, 3, 3, generator=generator)
    for given, factor in ((None, 1.0), (0.18215, 0.18215), (3, 3.0)):
        channel_map = scaling_of({**stated, "scaling_factor": given})
        assert torch.equal(channel_map.shift, latents_mean.float())
        assert torch.equal(channel_map.matrix.diagonal(), (factor / latents_std).float()), "rounded once"
        # As in diffusers' pipelines: (mean - latents_mean) * scaling_factor / latents_std.
        by_hand = (mean - latents_mean.view(1, -1, 1, 1).float()) * factor / latents_std.view(1, -1, 1, 1).float()
        torch.testing.assert_close(channel_map(mean), by_hand)
    unscaled = scaling_of({"latent_channels": 3})
    assert torch.equal(unscaled.matrix, torch.eye(3))
    assert torch.equal(unscaled.shift, torch.zeros(3))


@pytest.mark.parametrize("key", ["scaling_factor", "shift_factor", "latents_mean", "latents_std"])
def test_a_scaling_that_can_not_be_is_refused(key):
    never = [float("nan"), float("inf"), [1.0, 2.0], [1.0], "much", [1.0, float("nan"), 2.0]]
    if key in ("scaling_factor", "latents_std"):
        never += [0, 0.0, -1.0, [1.0, 0.0, 1.0], [1.0, -2.0, 1.0]]
    for value in never:
        with pytest.raises(UserError, match=r"^the autoencoder's "):
            scaling_of({"latent_channels": 3, key: value})
    with pytest.raises(UserError):
        scaling_of({"latent_channels": 3, "shift_factor": 0.1, "latents_mean": [0.0, 1.0, 0.0]})


def test_what_is_stored_of_a_codec_is_told_apart_by_its_class_and_its_settings():
    codec = built()
    assert codec.settings()["class"] == codec.record()["class"] == "kl"
    assert {name: value for name, value in codec.settings().items() if name != "class"} == codec.record()["config"]
    assert codec.settings() != built(norm_num_groups=2).settings(), "equal weights in other groups make other means"


def test_a_saved_folder_is_that_autoencoder_in_safetensors(tmp_path):
    codec = built()
    codec.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "diffusion_pytorch_model.safetensors"]
    again = AutoencoderKL.from_pretrained(tmp_path, use_safetensors=True)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in codec.network.state_dict().items())


@pytest.mark.parametrize("most", [0, 1, 2, 4, 7])
def test_images_go_both_ways_in_passes_of_the_memory_budget(limit_memory, monkeypatch, most):
    codec = built(image_channels=3, block_out_channels=(8, 16))
    image, sizes = torch.rand(7, 3, 8, 8), []
    latent = codec.encode(image)
    decoded = codec.decode(latent)
    for name in ("encode", "decode"):
        way = getattr(codec.network, name)
        monkeypatch.setattr(codec.network, name, lambda value, way=way: (sizes.append(len(value)), way(value))[1])
    limit_memory(most * 3 * 64 * codec.bytes_per_number)
    assert codec.bytes_per_number == 48 * 8 / 3
    torch.testing.assert_close(codec.encode(image), latent)
    torch.testing.assert_close(codec.decode(latent), decoded)
    assert max(sizes) == {0: 1, 1: 1, 2: 2, 4: 4, 7: 7}[most]
    assert sum(sizes) == 14
    assert codec.decode(latent[:0]).shape == (0, 3, 8, 8)
