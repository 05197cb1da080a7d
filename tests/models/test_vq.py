"""The VQ codec: diffusers' VQModel around its codebook, which way its numbers go, and in which precision."""

import pytest
import torch
from diffusers import VQModel

from ldm_privacy.models.vq import VQCodec


def network(num_blocks=2, **options):
    """A small VQModel of colour images with attention in the middle, the same at every call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return VQModel(
            **{
                "down_block_types": ("DownEncoderBlock2D",) * num_blocks,
                "up_block_types": ("UpDecoderBlock2D",) * num_blocks,
                "block_out_channels": (4, 8, 8, 8)[:num_blocks],
                "norm_num_groups": 2,
                "num_vq_embeddings": 8,
                "scaling_factor": 0.5,
                **options,
            }
        )


def images(count, size=8):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("num_blocks", [1, 2, 3, 4])
def test_each_block_after_the_first_halves_the_sides(num_blocks):
    codec, side = VQCodec(network(num_blocks)), 2 ** (5 - num_blocks)
    latent = codec.encode(images(2, 16))
    assert latent.shape[1:] == codec.latent_shape(3, 16) == (3, side, side)
    assert codec.decode(latent).shape == (2, 3, 16, 16)
    assert codec.decode(latent[..., :1]).shape == (2, 3, 16, 2 ** (num_blocks - 1)), "whatever its height and width"


@pytest.mark.parametrize(("options", "channels"), [({}, 3), ({"vq_embed_dim": 5}, 5), ({"latent_channels": 2}, 2)])
def test_latents_have_the_channels_of_the_codebook(options, channels):
    codec = VQCodec(network(**options))
    assert codec.encode(images(2)).shape[1:] == codec.latent_shape(3, 8) == (channels, 4, 4)
    assert codec.channel_map.shift.shape == (channels,)


@pytest.mark.parametrize("factor", [0.5, 3])
def test_latents_are_what_the_encoder_returns_scaled_and_the_codebook_is_passed_by_both_ways(factor):
    vq = network(scaling_factor=factor)
    codec, image = VQCodec(vq), images(3)
    unquantised = vq.encode(image).latents
    assert torch.equal(codec.mean(image), unquantised)
    latent = codec.encode(image)
    torch.testing.assert_close(latent, factor * unquantised)
    torch.testing.assert_close(codec.decode(latent), vq.decode(unquantised, force_not_quantize=True).sample)
    assert (codec.decode(latent) - vq.decode(unquantised).sample).abs().max() > 1e-3, "the pipeline's is rounded"
    assert codec.channel_map.name == "diffusers"


@pytest.mark.parametrize("own", [torch.float32, torch.float64])
@pytest.mark.parametrize("asked", [torch.float32, torch.float64])
def test_answers_have_the_precision_of_the_question_whatever_that_of_the_network(own, asked):
    plain, codec, image = VQCodec(network()), VQCodec(network().to(own)), images(3)
    latent = codec.encode(image.to(asked))
    assert codec.mean(image.to(asked)).dtype == latent.dtype == codec.decode(latent).dtype == asked
    torch.testing.assert_close(latent, plain.encode(image).to(asked), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(codec.decode(latent), plain.decode(plain.encode(image)).to(asked), rtol=1e-4, atol=1e-5)


def test_the_decoder_is_frozen_and_has_a_second_derivative_through_its_attention():
    codec = VQCodec(network().train())
    assert not codec.network.training
    assert not any(weight.requires_grad for weight in codec.network.parameters())
    latent = codec.encode(images(1))
    # J v as the derivative of J^T u, which the fused attention kernel doesn't have.
    _, product = torch.autograd.functional.jvp(codec.decode, latent, torch.ones_like(latent))
    step = codec.decode(latent + 1e-2) - codec.decode(latent - 1e-2)
    torch.testing.assert_close(product, step / 2e-2, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("most", [0, 1, 2, 4, 7])
def test_images_go_both_ways_in_passes_of_the_memory_budget(limit_memory, monkeypatch, most):
    codec, image, sizes = VQCodec(network()), images(7), []
    latent = codec.encode(image)
    decoded = codec.decode(latent)
    for name in ("encode", "decode"):
        way = getattr(codec.network, name)
        monkeypatch.setattr(
            codec.network, name, lambda value, way=way, **options: (sizes.append(len(value)), way(value, **options))[1]
        )
    limit_memory(most * 3 * 64 * codec.bytes_per_number)
    assert codec.bytes_per_number == 48 * 4 / 3
    torch.testing.assert_close(codec.encode(image), latent)
    torch.testing.assert_close(codec.decode(latent), decoded)
    assert max(sizes[: len(sizes) // 2]) == max(sizes[len(sizes) // 2 :]) == max(most, 1)
    assert sum(sizes) == 14


def test_what_is_stored_of_it_is_told_apart_by_its_class():
    codec = VQCodec(network())
    assert codec.settings() == {"class": "vq"}
    assert codec.weights().keys() == codec.network.state_dict().keys()
