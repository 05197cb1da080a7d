"""Pixel influence against J J^T: in the limit of a linear decoder, by its laws, and through an autoencoder."""

import math

import pytest
import torch

from ldm_privacy.errors import UserError
from ldm_privacy.geometry.exact import ExactInfluence
from ldm_privacy.geometry.pixels import pixel_influence
from ldm_privacy.randomness import normal
from tests.reference.geometry import dense_jacobian

SHAPE, IMAGE_SHAPE = (2, 3, 3), (3, 4, 4)


def linear_decoder(seed, image_shape=IMAGE_SHAPE):
    matrix = normal("test matrix", (seed,), (math.prod(image_shape), math.prod(SHAPE))).double()
    return (lambda latent: (latent.flatten(1) @ matrix.T).reshape(-1, *image_shape)), matrix


def test_a_decoder_of_one_dimension_a_pixel_answers_to_that_probe_alone():
    # J = diag(w): (J v)_p = w_p v_p, so the estimate is w_p^2 times the mean square of the probe, whatever the probe.
    weight = normal("test weight", (0,), (1, 4, 4)).double()
    latent, index = torch.zeros(2, 1, 4, 4, dtype=torch.float64), torch.tensor([4, 9])
    found, _ = pixel_influence(lambda z: z * weight, latent, index, num_probes=3)
    plain, _ = pixel_influence(lambda z: z, latent, index, num_probes=3)
    torch.testing.assert_close(found, plain * weight.square())


def test_probes_are_draws_that_belong_to_the_sample_thirty_two_by_default():
    decode, matrix = linear_decoder(3)
    latent, index = torch.zeros(2, *SHAPE, dtype=torch.float64), torch.tensor([4, 9])
    for seed, options, count in ((0, {}, 32), (7, {"seed": 7, "num_probes": 5, "vectors_per_pass": 2}, 5)):
        squares = 0
        for probe in range(count):
            moved = normal("pixel probe", (seed, index, probe), SHAPE).double().flatten(1) @ matrix.T
            squares = squares + moved.reshape(-1, *IMAGE_SHAPE).square().sum(1)
        torch.testing.assert_close(pixel_influence(decode, latent, index, **options)[0], squares / count)


def test_products_in_half_precision_are_squared_and_summed_in_single_precision():
    latent, index = torch.zeros(2, 1, 4, 4, dtype=torch.bfloat16), torch.tensor([4, 9])
    found, image = pixel_influence(lambda z: z, latent, index, num_probes=3)
    probes = torch.stack([normal("pixel probe", (0, index, probe), (1, 4, 4)).bfloat16().float() for probe in range(3)])
    assert (found.dtype, image.dtype) == (torch.float32, torch.bfloat16)
    torch.testing.assert_close(found, probes.square().sum(0).sum(1) / 3)


def test_linear_decoder_within_five_standard_errors_of_the_diagonal_of_jjt():
    decode, matrix = linear_decoder(1)
    num_probes = 4000
    latent = torch.zeros(1, *SHAPE, dtype=torch.float64)
    found = pixel_influence(decode, latent, torch.tensor([3]), num_probes=num_probes, vectors_per_pass=1000)[0][0]
    product = (matrix @ matrix.T).reshape(*IMAGE_SHAPE, *IMAGE_SHAPE)
    for row in range(4):
        for column in range(4):
            block = product[:, row, column, :, row, column]
            standard_error = math.sqrt(2 * float(block.square().sum()) / num_probes)
            assert abs(float(found[row, column]) - float(block.trace())) < 5 * standard_error


def test_relative_variance_is_two_over_num_probes_for_one_image_channel():
    decode, matrix = linear_decoder(2, (1, 4, 4))
    num_samples, num_probes = 4000, 8
    latent = torch.zeros(num_samples, *SHAPE, dtype=torch.float64)
    found, _ = pixel_influence(decode, latent, torch.arange(num_samples), num_probes=num_probes)
    ratio = found.flatten(1) / matrix.square().sum(1)
    law = 2 / num_probes
    # chi^2_K / K: fourth central moment 12 / K^2 + 48 / K^3, so the variance of the sample variance is known.
    spread = math.sqrt((12 / num_probes**2 + 48 / num_probes**3 - law**2) / num_samples)
    assert ((ratio.mean(0) - 1).abs() < 5 * math.sqrt(law / num_samples)).all()
    assert ((ratio.var(0) - law).abs() < 5 * spread).all()


@pytest.mark.parametrize("attention", [False, True])
def test_autoencoder_sums_to_the_influence_of_the_latent(autoencoder, attention):
    network = autoencoder(attention)
    latent = normal("test latent", (torch.arange(2),), (2, 2, 2)).double()

    def decode(z):
        return network.decode(z).sample

    num_probes = 16
    found, image = pixel_influence(decode, latent, torch.arange(2), num_probes=num_probes)
    torch.testing.assert_close(image, decode(latent))
    jacobian = dense_jacobian(decode, latent)
    exact = jacobian.square().sum(2).reshape(2, 3, 4, 4).sum(1)
    # tr(J J^T) by Gaussian probes: variance 2 ||J J^T||_F^2 / K.
    for sample in range(2):
        gram = jacobian[sample] @ jacobian[sample].T
        standard_error = float((2 * gram.square().sum() / num_probes).sqrt())
        assert abs(float(found[sample].sum() - exact[sample].sum())) < 5 * standard_error
    influence = ExactInfluence()(decode, latent, torch.arange(2)).influence
    torch.testing.assert_close(exact.sum((1, 2)), influence.sum((1, 2, 3)))


def test_a_sample_keeps_its_numbers_in_any_batch_and_order():
    decode, _ = linear_decoder(3)

    def curved(latent):
        return decode(latent).tanh()

    latent, index = normal("test latent", (torch.arange(5),), SHAPE).double(), torch.tensor([7, 3, 11, 0, 5])
    whole, image = pixel_influence(curved, latent, index, num_probes=5)
    torch.testing.assert_close(image, curved(latent))
    order = torch.tensor([4, 2, 0, 1, 3])
    permuted, _ = pixel_influence(curved, latent[order], index[order], num_probes=5)
    torch.testing.assert_close(permuted, whole[order])
    split, image_of_split = pixel_influence(curved, latent, index, num_probes=5, vectors_per_pass=3)
    torch.testing.assert_close((split, image_of_split), (whole, image))
    assert not torch.allclose(pixel_influence(curved, latent, index, num_probes=5, seed=1)[0], whole)
    with torch.inference_mode():
        torch.testing.assert_close(pixel_influence(curved, latent, index, num_probes=5)[0], whole)


def test_bad_input_is_named():
    decode, _ = linear_decoder(4)
    latent, index = torch.zeros(2, *SHAPE, dtype=torch.float64), torch.tensor([5, 8])
    with pytest.raises(UserError, match="num_probes: 0"):
        pixel_influence(decode, latent, index, num_probes=0)
    with pytest.raises(UserError, match="pixels need images"):
        pixel_influence(lambda z: z.flatten(1), latent, index)
    with pytest.raises(UserError, match="can't take a latent"):
        pixel_influence(decode, latent[:, :1], index)
    latent[1] = math.nan
    with pytest.raises(UserError, match="sample 8"):
        pixel_influence(lambda z: decode(z).tanh(), latent, index)


@pytest.mark.parametrize("name", ["num_probes", "vectors_per_pass"])
def test_counts_below_one_are_refused(name):
    with pytest.raises(UserError, match=name):
        pixel_influence(lambda z: z, torch.zeros(1, 1, 2, 2), torch.arange(1), **{name: 0})
