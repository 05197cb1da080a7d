"""Singular values and local distortion against dense Jacobians."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ldm_privacy.errors import UserError
from ldm_privacy.geometry import local_distortion, top_singular_values
from tests.reference.geometry import dense_jacobian, published_decoder


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def with_spectrum(values, num_pixels=512, seed=0):
    """A linear decoder (1, 8, len/8) -> (1, 16, num_pixels/16) with these singular values."""
    left = torch.linalg.qr(normal(num_pixels, len(values), seed=seed)).Q
    right = torch.linalg.qr(normal(len(values), len(values), seed=seed + 1)).Q
    matrix = left * values @ right.T
    return lambda latent: (latent.flatten(1) @ matrix.T.to(latent.dtype)).reshape(len(latent), 1, 16, -1)


def conv_decoder(channels=16):
    """Random convolutions without group normalisation, 4x6x6 -> 3x12x12: a flat spectrum."""
    first, second = normal(4, channels, 4, 4, seed=3) / 8, normal(3, channels, 3, 3, seed=4) / 8

    def decode(latent):
        hidden = F.silu(F.conv_transpose2d(latent, first.to(latent.dtype), stride=2, padding=1))
        return F.conv2d(hidden, second.to(latent.dtype), padding=1)

    return decode


def test_reference_singular_values_and_volume(shared_file):
    arrays = np.load(shared_file("reference/geometry.npz"))
    decode, latent = published_decoder(arrays, torch.float32), torch.tensor(arrays["z"])
    values = top_singular_values(decode, latent, 20)
    np.testing.assert_allclose(values, arrays["singular_values"][:, :20], rtol=1e-4)
    np.testing.assert_allclose(local_distortion(decode, latent, 8), arrays["log_volume_top8"], rtol=1e-4)
    np.testing.assert_allclose(top_singular_values(decode, latent, 64), arrays["singular_values"], rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_flat_spectrum_of_a_convolutional_decoder_within_one_percent(dtype):
    decode, latent = conv_decoder(), normal(3, 4, 6, 6)
    exact = torch.linalg.svdvals(dense_jacobian(decode, latent))[:, :20]
    assert (exact[:, 19] / exact[:, 0]).mean() > 0.5
    values = top_singular_values(decode, latent.to(dtype), 20)
    assert values.dtype == dtype
    error = (values.double() - exact) / exact
    assert error.abs().max() < 0.01
    # A projection of J never has larger singular values than J.
    assert error.max() < 1e-5
    torch.testing.assert_close(local_distortion(decode, latent.to(dtype)), values.double().log().sum(1).to(dtype))


@pytest.mark.parametrize(
    "spectrum",
    [
        torch.linspace(2, 1, 128, dtype=torch.float64),
        torch.logspace(2, -3, 128, dtype=torch.float64),
        torch.ones(128, dtype=torch.float64),
        torch.cat([torch.full((20,), 3.0), torch.ones(108)]).double(),
        torch.linalg.svdvals(normal(512, 128, seed=5)),
    ],
    ids=["linear", "five decades", "all equal", "a gap", "a Gaussian matrix"],
)
def test_known_spectra_within_one_percent(spectrum):
    values = top_singular_values(with_spectrum(spectrum), torch.zeros(1, 1, 8, 16), 20)
    torch.testing.assert_close(values[0].double(), spectrum[:20], rtol=0.01, atol=0)


def test_low_rank_and_zero_singular_values():
    spectrum = torch.cat([torch.linspace(5, 1, 10), torch.zeros(54)]).double()
    latent = torch.zeros(2, 1, 8, 8, dtype=torch.float64)
    values = top_singular_values(with_spectrum(spectrum), latent, 20)
    torch.testing.assert_close(values[0, :10], spectrum[:10])
    assert (values[:, 10:] < 1e-6).all()
    assert local_distortion(with_spectrum(spectrum), latent, 20).isfinite().all()


def test_more_power_iterations_only_raise_the_values():
    decode, latent = with_spectrum(torch.linspace(2, 1, 128, dtype=torch.float64)), torch.zeros(1, 1, 8, 16).double()
    values = [top_singular_values(decode, latent, 10, 2, count, tolerance=torch.inf) for count in range(4)]
    for fewer, more in itertools.pairwise(values):
        assert (more >= fewer - 1e-12).all()


def test_batches_order_and_contexts_change_nothing():
    decode, latent = conv_decoder(), normal(5, 4, 6, 6)
    whole = local_distortion(decode, latent, 8, 4)
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(local_distortion(decode, latent[order], 8, 4), whole[order])
    chunked = local_distortion(decode, latent, 8, 4, decode_batch_size=2, vectors_per_pass=5)
    torch.testing.assert_close(chunked, whole)
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            torch.testing.assert_close(local_distortion(decode, latent.clone(), 8, 4), whole)


def test_stretching_the_image_shifts_the_distortion():
    decode, latent = conv_decoder(), normal(2, 4, 6, 6)
    shift = local_distortion(lambda z: 3 * decode(z), latent, 8) - local_distortion(decode, latent, 8)
    torch.testing.assert_close(shift, torch.full_like(shift, 8 * np.log(3)))


def test_autoencoder_with_attention():
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    network = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        norm_num_groups=2,
        latent_channels=2,
    )
    network.eval().requires_grad_(False).double()
    latent = normal(2, 2, 3, 3)
    exact = torch.linalg.svdvals(dense_jacobian(lambda z: network.decode(z).sample, latent))
    values = top_singular_values(lambda z: network.decode(z).sample, latent, 10, 4)
    torch.testing.assert_close(values, exact[:, :10], rtol=0.01, atol=0)


def test_wrong_arguments_of_distortion():
    decode, latent = conv_decoder(), normal(1, 4, 6, 6)
    for rank in (0, 145):
        with pytest.raises(UserError, match=f"rank: {rank}.*144"):
            local_distortion(decode, latent, rank)
    with pytest.raises(UserError, match="oversample"):
        local_distortion(decode, latent, 4, -1)
    with pytest.raises(UserError, match="num_power_iterations"):
        local_distortion(decode, latent, 4, 2, -1)
    with pytest.raises(UserError, match="tolerance"):
        local_distortion(decode, latent, 4, tolerance=0)
    with pytest.raises(UserError, match="latent of shape"):
        local_distortion(decode, normal(1, 5, 6, 6))
