"""Singular values and local distortion against dense Jacobians."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ldm_privacy.errors import UserError
from ldm_privacy.geometry.distortion import Distortion, vectors_at_once
from ldm_privacy.geometry.stream import stream_distortion
from ldm_privacy.randomness import normal as keyed_normal
from tests.reference.geometry import applications_within, dense_jacobian, krylov_singular_values, published_decoder


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def randomized(*arguments, **options):
    """The randomized method, also where the whole of J would cost less."""
    return Distortion(*arguments, exact=False, **options)


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
    values = randomized().singular_values(decode, latent)
    np.testing.assert_allclose(values, arrays["singular_values"][:, :20], rtol=1e-4)
    np.testing.assert_allclose(randomized(8)(decode, latent), arrays["log_volume_top8"], rtol=1e-4)
    np.testing.assert_allclose(randomized(64).singular_values(decode, latent), arrays["singular_values"], rtol=1e-4)


@pytest.fixture(scope="module")
def flat():
    """Decoder, latents and their 20 largest singular values."""
    decode, latent = conv_decoder(), normal(2, 4, 6, 6)
    return decode, latent, torch.linalg.svdvals(dense_jacobian(decode, latent))[:, :20]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_flat_spectrum_of_a_convolutional_decoder_within_one_percent(flat, dtype):
    decode, latent, exact = flat
    assert (exact[:, 19] / exact[:, 0]).mean() > 0.5
    values = randomized().singular_values(decode, latent.to(dtype))
    assert values.dtype == dtype
    error = (values.double() - exact) / exact
    assert error.abs().max() < 0.01
    # A projection of J never has larger singular values than J.
    assert error.max() < 1e-5
    torch.testing.assert_close(randomized()(decode, latent.to(dtype)), values.double().log().sum(1).to(dtype))


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
    values = randomized().singular_values(with_spectrum(spectrum), torch.zeros(1, 1, 8, 16))
    torch.testing.assert_close(values[0].double(), spectrum[:20], rtol=0.01, atol=0)


def test_low_rank_and_zero_singular_values():
    spectrum = torch.cat([torch.linspace(5, 1, 10), torch.zeros(54)]).double()
    latent = torch.zeros(2, 1, 8, 8, dtype=torch.float64)
    values = randomized().singular_values(with_spectrum(spectrum), latent)
    torch.testing.assert_close(values[0, :10], spectrum[:10])
    assert (values[:, 10:] < 1e-6).all()
    assert randomized()(with_spectrum(spectrum), latent).isfinite().all()


def test_more_power_iterations_only_raise_the_values():
    decode, latent = with_spectrum(torch.linspace(2, 1, 128, dtype=torch.float64)), torch.zeros(1, 1, 8, 16).double()
    values = [randomized(10, 2, count, tolerance=torch.inf).singular_values(decode, latent) for count in range(4)]
    for fewer, more in itertools.pairwise(values):
        assert (more >= fewer - 1e-12).all()


def test_batches_order_and_contexts_change_nothing():
    decode, latent = conv_decoder(), normal(5, 4, 6, 6)
    whole = randomized(8, 4)(decode, latent)
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(randomized(8, 4)(decode, latent[order]), whole[order])
    torch.testing.assert_close(randomized(8, 4, vectors_per_pass=5)(decode, latent), whole)
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            torch.testing.assert_close(randomized(8, 4)(decode, latent.clone()), whole)


def test_stretching_the_image_shifts_the_distortion():
    decode, latent = conv_decoder(), normal(2, 4, 6, 6)
    shift = randomized(8)(lambda z: 3 * decode(z), latent) - randomized(8)(decode, latent)
    torch.testing.assert_close(shift, torch.full_like(shift, 8 * np.log(3)))


def test_autoencoder_with_attention(autoencoder):
    network = autoencoder()
    latent = normal(2, 2, 3, 3)
    exact = torch.linalg.svdvals(dense_jacobian(lambda z: network.decode(z).sample, latent))
    values = randomized(10, 4).singular_values(lambda z: network.decode(z).sample, latent)
    torch.testing.assert_close(values, exact[:, :10], rtol=0.01, atol=0)


def test_wrong_arguments_of_distortion():
    decode, latent = conv_decoder(), normal(1, 4, 6, 6)
    with pytest.raises(UserError, match=r"rank: 145.*144"):
        randomized(145)(decode, latent)
    with pytest.raises(UserError, match="rank: 0"):
        Distortion(0)
    with pytest.raises(UserError, match="oversample"):
        Distortion(4, -1)
    with pytest.raises(UserError, match="num_power_iterations"):
        Distortion(4, 2, -1)
    with pytest.raises(UserError, match="tolerance"):
        Distortion(4, tolerance=0)
    with pytest.raises(UserError, match="vectors_per_pass"):
        Distortion(vectors_per_pass=0)
    with pytest.raises(UserError, match="latent of shape"):
        Distortion()(decode, normal(1, 5, 6, 6))


# --- the two ways ----------------------------------------------------------------------------------------------------


WEIGHT = normal(12, 2, 3, 3)


def small_decoder(latent):
    """2x4x4 -> 3x8x8: D = 32, 192 numbers in an image."""
    return torch.tanh(F.conv2d(latent, WEIGHT, padding=1)).flatten(1).unflatten(1, (3, 8, 8))


def test_the_exact_and_the_randomized_way_agree():
    latent = normal(5, 2, 4, 4, seed=1)
    exact = Distortion(6, exact=True)(small_decoder, latent)
    # Each of the 6 singular values is within 1 %.
    torch.testing.assert_close(exact, randomized(6)(small_decoder, latent), rtol=0, atol=0.06)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda z: small_decoder(z[None])[0].flatten()))(latent).flatten(2)
    torch.testing.assert_close(exact, torch.linalg.svdvals(jacobian)[:, :6].log().sum(1))


def test_batches_and_the_choice_of_the_way_change_nothing():
    latent, done = normal(5, 2, 4, 4, seed=2), []
    # 192 numbers in an image: (6 + 2) * 3 = 24 products are fewer, (6 + 24) * 7 = 210 are more.
    fewer = stream_distortion(Distortion(6, 2, 1), small_decoder, latent, progress=done.append)
    more = stream_distortion(Distortion(6, 24, 3), small_decoder, latent)
    assert done == [5]
    torch.testing.assert_close(more, Distortion(6, exact=True)(small_decoder, latent))
    torch.testing.assert_close(fewer, more, rtol=0, atol=0.06)
    assert stream_distortion(Distortion(6), small_decoder, latent[:0]).shape == (0,)


@pytest.mark.parametrize(
    ("rank", "oversample", "applications", "expected"),
    # Blocks of J v with J^T u in between; 32 dimensions end the third and the fourth, the fifth takes J by rows.
    [(6, 2, 1, 8 * 3), (5, 0, 3, 5 * 7), (6, 4, 9, 3 * (10 + 10) + 2), (30, 30, 0, 32), (20, 10, 3, 192)],
)
def test_products_and_decodes_are_what_it_says(products, rank, oversample, applications, expected):
    rows = 0

    def decode(latent):
        nonlocal rows
        rows += len(latent)
        return small_decoder(latent)

    distortion = Distortion(rank, oversample, applications, tolerance=torch.inf, vectors_per_pass=1)
    stream_distortion(distortion, decode, normal(5, 2, 4, 4))
    assert products.total() == 5 * expected == 5 * distortion.products_per_sample(32, 192)
    # Forward mode runs the decoder once more for each J v; beside that each sample is decoded once.
    assert rows == 5 + products["times"]


def test_small_images_fill_an_accelerator_with_many_vectors_and_large_ones_with_few():
    accelerator, cpu = torch.device("cuda"), torch.device("cpu")
    sides = [8, 31, 32, 33, 64, 128, 256, 1024]
    assert [vectors_at_once(accelerator, 3 * side**2) for side in sides] == [32, 32, 32, 30, 8, 2, 1, 1]
    assert [vectors_at_once(cpu, 3 * side**2) for side in sides] == [4] * 8
    assert type(vectors_at_once(accelerator, 3 * 33**2)) is int


def test_the_whole_jacobian_is_taken_up_to_as_many_products_as_blocks_would_take():
    # (6 + 2) * 3 = 24 products, of which D = 10 leaves 8 + 8 + 2.
    assert [Distortion(6, 2, 1).products_per_sample(10, num_pixels) for num_pixels in (23, 24, 25)] == [23, 24, 18]


def test_products_are_a_lower_bound_where_the_tolerance_asks_for_more(products):
    distortion = Distortion(6, 2, 0)
    distortion(small_decoder, normal(1, 2, 4, 4))
    assert products.total() > distortion.products_per_sample(32, 192) == 8
    # At most until the basis spans all 32 dimensions: blocks of 8 through J and back three times, and the fourth through J.
    assert distortion.products_per_sample(32, 192, most=True) == 3 * (8 + 8) + 8
    endless = Distortion(6, 2, 0, tolerance=1e-300)
    products.clear()
    endless(small_decoder, normal(1, 2, 4, 4))
    assert products.total() <= 56
    fixed = Distortion(6, 2, 0, tolerance=torch.inf)
    assert fixed.products_per_sample(32, 192, most=True) == fixed.products_per_sample(32, 192) == 8


def test_the_whole_jacobian_is_taken_in_the_precision_of_the_latent():
    latent = normal(2, 2, 4, 4, seed=1).double()
    weight = WEIGHT.double()

    def decode(latent):
        return torch.tanh(F.conv2d(latent, weight, padding=1)).flatten(1).unflatten(1, (3, 8, 8))

    exact = Distortion(6, exact=True).singular_values(decode, latent)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda z: decode(z[None])[0].flatten()))(latent).flatten(2)
    torch.testing.assert_close(exact, torch.linalg.svdvals(jacobian)[:, :6], rtol=1e-12, atol=0)


# --- the stopping rule -----------------------------------------------------------------------------------------------


LATENT = torch.zeros(1, 1, 8, 4, dtype=torch.float64)  # D = 32
SPECTRA = {
    "linear": torch.linspace(2, 1, 32).double(),
    "two decades": torch.logspace(0, -2, 32).double(),
    "a gap": torch.cat([torch.full((3,), 3.0), torch.linspace(1, 0.5, 29)]).double(),
    "parts in a million": torch.cat([torch.linspace(3, 1, 4), torch.linspace(3e-6, 1e-6, 28)]).double(),
}


def slowly(decode, rank, oversample, latent=LATENT):
    """Values after 0, 1, ... applications, from the whole of J and the first block that the seed 0 stands for."""
    block = keyed_normal("distortion", (0,), (32, rank + oversample)).double()
    return krylov_singular_values(dense_jacobian(decode, latent)[0], block, rank)


@pytest.mark.parametrize("spectrum", SPECTRA.values(), ids=SPECTRA)
@pytest.mark.parametrize("scale", [1e-3, 1, 1e3])
def test_it_goes_on_until_no_value_grew_by_more_than_half_the_tolerance(products, spectrum, scale):
    decode = with_spectrum(scale * spectrum, num_pixels=64)
    values = slowly(decode, 5, 1)
    # Tolerances on either side of the growth in each application, as far as it stands above rounding.
    growths = ((values[1:] - values[:-1]) / values[1:].clamp_min(1e-6 * values[1:, :1])).amax(1)
    assert (growths > 1e-3).sum() >= 2
    for growth, side, least in itertools.product(growths[growths > 1e-3].tolist(), (0.95, 1.05), (0, 2)):
        tolerance = 2 * side * growth
        expected = applications_within(values, tolerance, least)
        products.clear()
        found = randomized(5, 1, least, tolerance=tolerance).singular_values(decode, LATENT)[0]
        assert products["transpose_times"] == 6 * expected
        assert products["times"] == min(6 * (expected + 1), 32)
        torch.testing.assert_close(found, values[expected], rtol=1e-9, atol=1e-7 * values[expected, 0].item())


@pytest.mark.parametrize("count", range(3))
def test_no_value_grows_by_more_than_itself(products, count):
    # In the first product each grows by just that: a tolerance of 2 is already none.
    randomized(5, 1, count, tolerance=2.0).singular_values(with_spectrum(SPECTRA["linear"], num_pixels=64), LATENT)
    assert products.total() == Distortion(5, 1, count).products_per_sample(32, 64) == 6 * (2 * count + 1)


def test_values_of_zero_cost_no_further_products(products):
    spectrum = torch.cat([torch.linspace(3, 1, 3), torch.zeros(29)]).double()
    for values in (spectrum, 0 * spectrum):
        products.clear()
        randomized(5, 1).singular_values(with_spectrum(values, num_pixels=64), LATENT)
        assert products.total() == Distortion(5, 1).products_per_sample(32, 64) == 6 * 5


def test_a_batch_goes_on_for_its_hardest_sample_and_leaves_the_others_as_they_were(products):
    hard, easy = (with_spectrum(torch.linspace(1, last, 32).double(), num_pixels=64) for last in (0.03, 0.5))

    def decode(latent):
        return torch.where(latent.sum((1, 2, 3), keepdim=True) > 0, hard(latent), easy(latent))

    # A single direction: what the easy samples would gain after their end adds up to more than half the tolerance.
    latent, distortion = torch.cat([LATENT - 1, LATENT + 1, LATENT - 2]), randomized(1, 0, 0, tolerance=0.0077)
    alone, costs = [], []
    for sample in latent.split(1):
        products.clear()
        alone.append(distortion.singular_values(decode, sample))
        costs.append(products.total())
    products.clear()
    together = distortion.singular_values(decode, latent)
    # The first comes alone.
    assert products.total() == costs[0] + 2 * max(costs) > sum(costs)
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-12, atol=0)


def test_a_rank_of_all_dimensions_gives_all_singular_values(products):
    latent = normal(2, 2, 4, 4, seed=1)
    found = randomized(32, tolerance=1e-9).singular_values(small_decoder, latent)
    # The first block spans the whole space.
    assert products == {"times": 2 * 32}
    torch.testing.assert_close(found, torch.linalg.svdvals(dense_jacobian(small_decoder, latent)), rtol=1e-9, atol=0)
