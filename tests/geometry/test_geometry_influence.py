"""Influence estimators against references, closed forms and laws."""

import gc
import math
import weakref
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.special import digamma, polygamma

from ldm_privacy import randomness
from ldm_privacy.errors import UserError
from ldm_privacy.geometry.distortion import Distortion
from ldm_privacy.geometry.estimate import InfluenceEstimate, concatenate, mask_overlap
from ldm_privacy.geometry.exact import ExactInfluence
from ldm_privacy.geometry.jacobian import HELD, DecoderJacobian, gradients_enabled
from ldm_privacy.geometry.masks import KeepTopInfluence
from ldm_privacy.geometry.pixels import pixel_influence
from ldm_privacy.geometry.probe import ProbeInfluence
from ldm_privacy.geometry.shrunk import ShrunkInfluence, shrink_log_influence
from ldm_privacy.geometry.stream import stream_distortion, stream_influence
from ldm_privacy.registry import INFLUENCE_ESTIMATORS
from tests.reference.geometry import dense_jacobian, influence_loop, published_decoder, shrunk_log_influence


@pytest.fixture
def arrays(shared_file):
    return np.load(shared_file("reference/geometry.npz"))


@pytest.fixture
def matrix():
    """A linear decoder's matrix, 48 pixel numbers x 12 latent numbers with columns of very different length."""
    generator = torch.Generator().manual_seed(1)
    scale = torch.logspace(-1, 1, 12, dtype=torch.float64)
    return torch.randn(48, 12, generator=generator, dtype=torch.float64) * scale


def linear(matrix):
    return lambda latent: (latent.flatten(1) @ matrix.T).reshape(-1, 3, 4, 4)


def smooth(latent):
    """A small nonlinear decoder, 2x3x3 -> 3x6x6, samples independent."""
    weight = torch.sin(torch.arange(2 * 4 * 4 * 4, dtype=latent.dtype)).reshape(2, 4, 4, 4)
    mix = torch.cos(torch.arange(3 * 4, dtype=latent.dtype)).reshape(3, 4, 1, 1)
    return F.conv2d(torch.tanh(F.conv_transpose2d(latent, weight, stride=2, padding=1)), mix)


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_probe_influence_reproduces_the_reference(arrays):
    latent, probes = torch.tensor(arrays["z"]), torch.tensor(arrays["probes"])
    estimate = ProbeInfluence()(published_decoder(arrays, torch.float32), latent, torch.arange(6), probes)
    log_influence = 0.5 * (estimate.influence.flatten(1) + 1e-12).log()
    np.testing.assert_allclose(log_influence, arrays["log_influence_from_probes"], rtol=1e-4, atol=1e-4)


def test_exact_influence_reproduces_the_reference(arrays):
    latent = torch.tensor(arrays["z"])
    estimate = ExactInfluence()(published_decoder(arrays, torch.float32), latent, torch.arange(6))
    np.testing.assert_allclose(estimate.influence.flatten(1), arrays["diag_exact"], rtol=1e-4)
    assert estimate.influence.dtype == torch.float32
    assert not estimate.standard_error.any()
    in_double = ExactInfluence(float64=True)(published_decoder(arrays, torch.float32), latent, torch.arange(6)).influence
    dense = dense_jacobian(published_decoder(arrays), latent.double())
    torch.testing.assert_close(in_double.flatten(1), dense.square().sum(1), rtol=1e-12, atol=0)


@pytest.mark.parametrize("per_pass", [1, 3])
def test_probe_influence_equals_a_loop(per_pass):
    latent, probes = normal(5, 2, 3, 3, dtype=torch.float64), normal(5, 7, 3, 6, 6, seed=1, dtype=torch.float64)
    estimator = ProbeInfluence(probe_batch_size=per_pass)
    influence = estimator(smooth, latent, torch.arange(5), probes).influence
    torch.testing.assert_close(influence.flatten(1), influence_loop(smooth, latent, probes))


def test_drawn_probes_are_what_is_used():
    latent, index = normal(3, 2, 3, 3), torch.tensor([7, 1, 4])
    estimator = ProbeInfluence(4, seed=5)
    probes = torch.stack([estimator.draw(index, k, torch.Size((3, 6, 6)), torch.device("cpu")) for k in range(4)], dim=1)
    drawn, given = estimator(smooth, latent, index), estimator(smooth, latent, index, probes)
    assert torch.equal(drawn.influence, given.influence)
    assert torch.equal(drawn.mask_stability, given.mask_stability)


@pytest.mark.parametrize(("distribution", "draw"), [("gaussian", randomness.normal), ("rademacher", randomness.rademacher)])
def test_probes_are_draws_that_belong_to_the_sample(distribution, draw):
    index = torch.tensor([7, 1, 4])
    probe = ProbeInfluence(distribution=distribution, seed=5).draw(index, 2, torch.Size((3, 6, 6)), torch.device("cpu"))
    assert torch.equal(probe, draw("probe", (5, index, 2), (3, 6, 6)))


def test_products_in_half_precision_are_squared_in_single_precision():
    latent, index = torch.zeros(3, 1, 4, 4, dtype=torch.bfloat16), torch.arange(3)
    estimator = ProbeInfluence(1)
    influence = estimator(lambda z: z, latent, index).influence
    probe = estimator.draw(index, 0, latent.shape[1:], latent.device).bfloat16()
    assert influence.dtype == torch.float32
    assert torch.equal(influence, probe.float().square())


def test_images_may_have_one_dimension(matrix):
    latent, probes = normal(3, 3, 2, 2, dtype=torch.float64), normal(3, 5, 48, seed=1, dtype=torch.float64)
    influence = ProbeInfluence()(lambda z: z.flatten(1) @ matrix.T, latent, torch.arange(3), probes).influence
    torch.testing.assert_close(influence.flatten(1), (probes @ matrix).square().mean(1))


def test_linear_decoder_has_squared_column_norms(matrix):
    latent = normal(3, 3, 2, 2, dtype=torch.float64)
    exact = ExactInfluence()(linear(matrix), latent, torch.arange(3)).influence
    expected = matrix.square().sum(0).expand(3, -1)
    torch.testing.assert_close(exact.flatten(1), expected)


@pytest.mark.parametrize("num_probes", [2, 8])
def test_gaussian_probes_are_unbiased_with_relative_variance_2_over_k(matrix, num_probes):
    samples = 6000
    latent = torch.zeros(samples, 3, 2, 2, dtype=torch.float64)
    estimator = ProbeInfluence(num_probes)
    estimate = estimator(linear(matrix), latent, torch.arange(samples))
    ratio = estimate.influence.flatten(1) / matrix.square().sum(0)
    relative_variance = 2 / num_probes
    # chi^2_K / K: variance 2 / K, fourth central moment (12 K + 48) / K^3 -> standard errors of mean and variance.
    error_of_mean = math.sqrt(relative_variance / samples)
    fourth = (12 * num_probes + 48) / num_probes**3
    error_of_variance = math.sqrt((fourth - relative_variance**2) / samples)
    assert ((ratio.mean(0) - 1).abs() < 5 * error_of_mean).all()
    assert ((ratio.var(0) - relative_variance).abs() < 5 * error_of_variance).all()
    torch.testing.assert_close(estimate.standard_error, estimate.influence * math.sqrt(relative_variance))


def test_rademacher_probes_are_unbiased_with_their_own_variance(matrix):
    samples = 6000
    latent = torch.zeros(samples, 3, 2, 2, dtype=torch.float64)
    estimator = ProbeInfluence(1, distribution="rademacher")
    value = estimator(linear(matrix), latent, torch.arange(samples)).influence.flatten(1)
    exact = matrix.square().sum(0)
    variance = 2 * (exact.square() - matrix.pow(4).sum(0))
    assert ((value.mean(0) - exact).abs() < 5 * (variance / samples).sqrt()).all()
    fourth = (value - value.mean(0)).pow(4).mean(0)
    assert ((value.var(0) - variance).abs() < 5 * ((fourth - variance.square()) / samples).sqrt()).all()
    assert (variance < 2 * exact.square()).all()


@pytest.mark.parametrize("name", list(INFLUENCE_ESTIMATORS))
def test_influence_scales_as_one_over_s_squared(name):
    estimator = INFLUENCE_ESTIMATORS.get(name)()
    latent, index, s = normal(4, 2, 3, 3, dtype=torch.float64), torch.arange(4), 0.18
    plain = estimator(smooth, latent, index)
    scaled = estimator(lambda z: smooth(z / s), latent * s, index)
    torch.testing.assert_close(scaled.influence, plain.influence / s**2)
    torch.testing.assert_close(scaled.standard_error, plain.standard_error / s**2)
    rule = KeepTopInfluence(0.6)
    assert torch.equal(rule(scaled.influence, index), rule(plain.influence, index))


@pytest.mark.parametrize("name", list(INFLUENCE_ESTIMATORS))
def test_neither_order_nor_batch_nor_context_matters(name):
    estimator = INFLUENCE_ESTIMATORS.get(name)()
    latent, index = normal(7, 2, 3, 3, dtype=torch.float64), torch.tensor([40, 3, 9, 1, 77, 5, 12])
    whole = estimator(smooth, latent, index)
    order = torch.tensor([3, 6, 0, 5, 1, 4, 2])
    permuted = estimator(smooth, latent[order], index[order])
    done = []
    streamed = stream_influence(estimator, smooth, latent, index, batch_size=3, progress=done.append)
    assert done == [3, 6, 7]
    with torch.no_grad():
        under_no_grad = estimator(smooth, latent, index)
    with torch.inference_mode():
        under_inference = estimator(smooth, latent.clone(), index)
    for field in ("influence", "standard_error", "mask_stability"):
        value = getattr(whole, field)
        if value is None:
            assert name == "exact"
            continue
        torch.testing.assert_close(getattr(permuted, field), value[order])
        for other in (streamed, under_no_grad, under_inference):
            torch.testing.assert_close(getattr(other, field), value)
        assert not value.requires_grad


def test_other_seed_or_sample_means_other_probes():
    latent = normal(1, 2, 3, 3).expand(2, -1, -1, -1)
    first = ProbeInfluence(4, seed=0)(smooth, latent, torch.tensor([0, 1])).influence
    second = ProbeInfluence(4, seed=1)(smooth, latent, torch.tensor([0, 1])).influence
    assert not torch.allclose(first[0], first[1])
    assert not torch.allclose(first, second)


def test_mask_stability_is_the_overlap_of_the_halves():
    latent, index = normal(3, 2, 3, 3), torch.arange(3)
    estimator = ProbeInfluence(5, keep_fraction=0.5)
    probes = normal(3, 5, 3, 6, 6, seed=3)
    halves = [ProbeInfluence()(smooth, latent, index, probes[:, part]).influence for part in (slice(0, 2), slice(2, 4))]
    masks = [KeepTopInfluence(0.5)(half, index) for half in halves]
    estimate = estimator(smooth, latent, index, probes)
    torch.testing.assert_close(estimate.mask_stability, mask_overlap(*masks))
    torch.testing.assert_close(estimate.halves, torch.stack(halves, dim=1))
    assert ProbeInfluence(1)(smooth, latent, index).mask_stability is None


def test_mask_overlap_is_a_share_of_what_the_first_keeps():
    first = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 1]]).bool().reshape(2, 1, 2, 2)
    second = torch.tensor([[1, 0, 1, 1], [0, 1, 1, 0]]).bool().reshape(2, 1, 2, 2)
    torch.testing.assert_close(mask_overlap(first, second), torch.tensor([2 / 3, 0.0]))


@pytest.mark.parametrize("attention", [False, True])
def test_exact_through_autoencoder_equals_the_dense_jacobian(autoencoder, attention):
    network = autoencoder(attention).float()
    latent = normal(2, 2, 2, 3)
    # Columns: D = 12 against 72 pixel numbers. The weights stay in single precision for the estimator.
    exact = ExactInfluence(float64=True)(lambda z: network.decode(z).sample, latent, torch.arange(2)).influence
    assert exact.dtype == torch.float64
    network.double()
    expected = dense_jacobian(lambda z: network.decode(z).sample, latent.double()).square().sum(1)
    torch.testing.assert_close(exact.flatten(1), expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("attention", [False, True])
def test_products_through_autoencoder_equal_the_dense_jacobian(autoencoder, attention):
    network = autoencoder(attention)

    def decode(latent):
        return network.decode(latent).sample

    latent = normal(2, 2, 2, 3, dtype=torch.float64)
    dense = dense_jacobian(decode, latent)
    jacobian = DecoderJacobian(decode, latent)
    v, u = normal(3, *latent.shape, dtype=torch.float64), normal(3, *jacobian.image.shape, dtype=torch.float64)
    for per_pass in (1, 2):
        times = jacobian.times(v, vectors_per_pass=per_pass).flatten(2)
        torch.testing.assert_close(times, torch.einsum("bpd,vbd->vbp", dense, v.flatten(2)))
        back = jacobian.transpose_times(u, vectors_per_pass=per_pass).flatten(2)
        torch.testing.assert_close(back, torch.einsum("bpd,vbp->vbd", dense, u.flatten(2)))


class OnceDifferentiable(torch.autograd.Function):
    """x^2 with a first derivative and nothing more: no second one, no forward mode, no batching rule."""

    @staticmethod
    def forward(context, x):
        context.save_for_backward(x)
        return x.square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context, gradient):
        (x,) = context.saved_tensors
        return 2 * x * gradient


def test_a_decoder_that_is_differentiable_only_once():
    def decode(latent):
        return OnceDifferentiable.apply(F.interpolate(latent, scale_factor=2)).repeat(1, 3, 1, 1)

    latent, index = normal(2, 1, 2, 2, dtype=torch.float64), torch.arange(2)
    exact = ExactInfluence()(decode, latent, index).influence
    torch.testing.assert_close(exact, 12 * (2 * latent).square())
    probe = [ProbeInfluence(6, probe_batch_size=size)(decode, latent, index).influence for size in (1, 4)]
    torch.testing.assert_close(probe[0], probe[1])


@pytest.mark.parametrize("pairs", [0, 1, 2.5, 100])
def test_the_memory_budget_changes_nothing_but_the_parts(limit_memory, pairs):
    latent, index, sizes = normal(7, 2, 3, 3, dtype=torch.float64), torch.arange(7), []

    def decode(latent):
        sizes.append(len(latent))
        return smooth(latent)

    estimators = {name: INFLUENCE_ESTIMATORS.get(name)() for name in INFLUENCE_ESTIMATORS}
    measures = {
        **{name: partial(lambda each: each(decode, latent, index).influence, each) for name, each in estimators.items()},
        "distortion": lambda: Distortion(3, 2, exact=False)(decode, latent),
        "pixels": lambda: pixel_influence(decode, latent, index)[0],
    }
    whole = {name: measure() for name, measure in measures.items()}
    limit_memory(HELD * DecoderJacobian(smooth, latent[:1]).kept_bytes * pairs)
    for name, measure in measures.items():
        torch.testing.assert_close(measure(), whole[name])
    sizes.clear()
    measures["probe"]()
    # The first sample alone, then as many as fit (weights count less in a larger part); none is decoded twice.
    assert sum(sizes) == 7
    assert (sizes[0], sizes[1]) == (1, {0: 1, 1: 1, 2.5: 2, 100: 6}[pairs])


def test_vectors_that_are_not_asked_for_go_through_as_memory_allows(limit_memory):
    jacobian = DecoderJacobian(smooth, normal(4, 2, 3, 3))
    for pairs, vectors in ((0, 1), (3.5, 1), (8.5, 2), (23.9, 5), (1000, 7)):
        limit_memory(HELD * jacobian.kept_bytes * pairs)
        assert jacobian.vectors_within(7) == vectors


def test_what_was_kept_of_a_decoding_goes_with_its_jacobian():
    kept = []

    def decode(latent):
        result = latent.exp()  # keeps its own result for the way back
        kept.append(weakref.ref(result))
        return 2 * result

    jacobian = DecoderJacobian(decode, normal(2, 2, 3, 3))
    jacobian.transpose_times(normal(1, 2, 2, 3, 3))
    jacobian.times(normal(1, 2, 2, 3, 3))
    del jacobian
    gc.collect()
    assert kept[0]() is None


def test_streaming_says_how_far_it_is():
    def decode(latent):
        return latent

    done = []
    stream_influence(ProbeInfluence(2), decode, torch.zeros(130, 1, 1, 2), torch.arange(130), progress=done.append)
    assert done == [64, 128, 130]
    done = []
    estimate = stream_influence(
        ProbeInfluence(2), decode, torch.zeros(1, 1, 1, 2), torch.arange(1), batch_size=1, progress=done.append
    )
    assert (done, len(estimate.influence)) == ([1], 1)


@pytest.mark.parametrize(("device", "expected"), [("cpu", [8, 16, 20]), ("meta", [20])])
def test_streaming_distortion_says_how_far_it_is_more_often_where_it_takes_long(device, expected):
    done = []
    found = stream_distortion(
        lambda _, latent: latent.sum((1, 2, 3)), None, torch.ones(20, 1, 1, 2).to(device), progress=done.append
    )
    assert done == expected
    assert found.shape == (20,)
    assert device == "meta" or (found == 2).all()


@pytest.mark.parametrize("upscale", [1, 4])
def test_products_are_what_the_estimators_say(products, upscale):
    # D = 18 against 36 numbers in an image (rows are cheaper) and 576 (columns are).
    def decode(latent):
        return F.interpolate(latent.sum(1, keepdim=True).tanh(), scale_factor=2 * upscale)

    latent, index, num_pixels = normal(5, 2, 3, 3), torch.arange(5), 36 * upscale**2
    expected = {"exact": 36 if upscale == 1 else 18, "probe": 16, "shrunk": 4}
    for name in INFLUENCE_ESTIMATORS:
        estimator = INFLUENCE_ESTIMATORS.get(name)()
        assert estimator.products_per_sample(18, num_pixels) == expected[name]
        stream_influence(estimator, decode, latent, index, batch_size=3)
        assert products.total() == 5 * expected[name], name
        products.clear()


def test_the_whole_jacobian_is_taken_by_columns_where_rows_are_more_than_twice_as_many(products):
    exact = ExactInfluence()
    assert [exact.products_per_sample(18, num_pixels) for num_pixels in (35, 36, 37)] == [35, 36, 18]
    # 108 numbers in an image of three channels, 36 in each: columns.
    exact(smooth, normal(1, 2, 3, 3), torch.arange(1))
    assert products == {"times": 18}


def test_columns_or_rows_go_through_together_as_far_as_memory_allows(monkeypatch, limit_memory):
    weight, seen = torch.nn.Parameter(torch.ones(2, 3, 3, dtype=torch.float64)), []
    products = DecoderJacobian._products

    def watched(jacobian, output, variable, vectors, vectors_per_pass):
        seen.append((len(jacobian.image), len(vectors), vectors_per_pass))
        return products(jacobian, output, variable, vectors, vectors_per_pass)

    monkeypatch.setattr(DecoderJacobian, "_products", watched)
    # Of z * weight squared autograd keeps z * weight, 18 numbers of 8 bytes a sample, and z; weights are no sample's.
    latent, index, pair = normal(4, 2, 3, 3, dtype=torch.float64), torch.arange(4), HELD * (18 + 18 + 18) * 8
    for pairs, samples, vectors in ((0.5, 1, 1), (1.5, 1, 1), (2.5, 2, 1), (7.5, 3, 2), (15.5, 3, 5)):
        seen.clear()
        limit_memory(pairs * pair)
        found = ExactInfluence()(lambda z: (z * weight).square(), latent, index).influence
        # The first sample comes alone, with as many vectors as fit.
        assert (seen[0][0], seen[0][2]) == (1, max(1, int(pairs)))
        assert next(each for each in seen if each[0] > 1 or samples == 1)[::2] == (samples, vectors), pairs
        torch.testing.assert_close(found, (2 * latent).square())


@pytest.mark.parametrize("num_bytes", [None, 0])
def test_squares_are_summed_in_double_precision_and_come_back_in_single(num_bytes, limit_memory):
    if num_bytes is not None:
        limit_memory(num_bytes)  # one vector at a time
    # A column of 4096 and a hundred ones: in single precision 2^24 + 1 is 2^24.
    matrix = torch.zeros(64, 101)
    matrix[0] = torch.cat([torch.tensor([4096.0]), torch.ones(100)])

    def decode(latent):
        return latent.flatten(1) @ matrix.to(latent.dtype)

    for dtype in (torch.float32, torch.bfloat16):
        latent = torch.zeros(1, 1, 8, 8, dtype=dtype)
        influence = ExactInfluence()(decode, latent, torch.arange(1)).influence
        assert influence.dtype == torch.float32
        assert influence[0, 0, 0, 0] == 2**24 + 100
        assert influence.sum() == influence[0, 0, 0, 0]


def test_vectors_of_another_precision_are_those_of_the_decoder():
    jacobian = DecoderJacobian(smooth, normal(2, 2, 3, 3))
    vectors = normal(1, 2, 3, 6, 6, dtype=torch.float64)
    assert torch.equal(jacobian.transpose_times(vectors), jacobian.transpose_times(vectors.float()))
    assert torch.equal(jacobian.times(vectors[..., :2, :3, :3]), jacobian.times(vectors[..., :2, :3, :3].float()))


def test_the_vectors_of_a_pass_go_back_through_the_decoder_together_one_where_nothing_is_said():
    passes = []

    def decode(latent):
        image = latent.sin()
        image.register_hook(lambda gradient: passes.append(gradient))
        return 2 * image

    latent, vectors = normal(2, 1, 2, 2), normal(5, 2, 1, 2, 2)
    jacobian = DecoderJacobian(decode, latent)
    for options, expected in (
        ({}, 5),
        ({"vectors_per_pass": 1}, 5),
        ({"vectors_per_pass": 2}, 3),
        ({"vectors_per_pass": 5}, 1),
    ):
        passes.clear()
        found = jacobian.transpose_times(vectors, **options)
        assert len(passes) == expected
        torch.testing.assert_close(found, 2 * latent.cos() * vectors)
        assert not found.is_inference(), "an inference tensor can't be differentiated any more"


def test_products_where_columns_do_not_work_are_one_a_pixel_number(products):
    latent = normal(2, 1, 2, 2, dtype=torch.float64)
    ExactInfluence()(lambda z: OnceDifferentiable.apply(F.interpolate(z, scale_factor=2)), latent, torch.arange(2))
    assert products == {"transpose_times": 2 * 16}


def test_an_estimate_comes_back_from_its_tensors_row_by_row():
    whole = ProbeInfluence(4)(smooth, normal(5, 2, 3, 3), torch.arange(5))
    assert set(whole.tensors()) == {"influence", "standard_error", "mask_stability", "halves"}
    assert set(ProbeInfluence(1)(smooth, normal(5, 2, 3, 3), torch.arange(5)).tensors()) == {"influence", "standard_error"}
    some = InfluenceEstimate.from_tensors(whole.tensors()).rows(torch.tensor([3, 1]))
    alone = ProbeInfluence(4)(smooth, normal(5, 2, 3, 3)[[3, 1]], torch.tensor([3, 1]))
    for name, value in some.tensors().items():
        torch.testing.assert_close(value, getattr(alone, name))
    assert {value.device.type for value in whole.to("meta").tensors().values()} == {"meta"}
    assert whole.to("meta").tensors().keys() == whole.tensors().keys()
    with pytest.raises(ValueError, match="standard_error"):
        InfluenceEstimate(whole.influence, whole.standard_error[:2])


def test_gradients_enabled_leaves_every_context():
    x = torch.ones(2, 1, 1, 1)
    for context in (torch.no_grad, torch.inference_mode):
        with context(), gradients_enabled(x.clone()) as leaf:
            (gradient,) = torch.autograd.grad((leaf**3).sum(), leaf)
        assert torch.equal(gradient, torch.full_like(x, 3))
    with torch.autocast("cpu", dtype=torch.bfloat16), gradients_enabled(x) as leaf:
        assert (leaf.flatten(1) @ torch.ones(1, 1)).dtype == torch.float32


# --- shrinkage -------------------------------------------------------------------------------------------------------


def lognormal_set(samples, dimensions, num_probes, residual_sd, seed=0):
    """Truth ln G = level + mean + rest, and chi^2_K / K estimates of it, (samples, 1, 1, dimensions) each."""
    generator = np.random.default_rng(seed)
    truth = np.exp(
        generator.normal(0, 1, (samples, 1))
        + generator.normal(0, 2, dimensions)
        + generator.normal(0, residual_sd, (samples, dimensions))
    )
    estimate = truth * generator.chisquare(num_probes, truth.shape) / num_probes
    return torch.tensor(truth)[:, None, None], torch.tensor(estimate)[:, None, None]


@pytest.mark.parametrize("num_probes", [1, 4, 16])
def test_shrinking_ranks_better_where_the_truth_is_known(num_probes):
    samples = 400
    truth, estimate = lognormal_set(samples, 64, num_probes, residual_sd=0.4)
    fit = shrink_log_influence(estimate, num_probes)
    rule, index = KeepTopInfluence(0.6), torch.arange(samples)
    overlap = [mask_overlap(rule(value, index), rule(truth, index)).double() for value in (estimate, fit.influence)]
    gain = overlap[1] - overlap[0]
    assert gain.mean() > 5 * gain.std() / math.sqrt(samples)
    assert (fit.influence.log() - truth.log()).square().mean() < float(polygamma(1, num_probes / 2))


def test_variance_decomposition_finds_its_parts():
    samples, dimensions, num_probes, residual_sd = 800, 50, 6, 0.5
    truth, estimate = lognormal_set(samples, dimensions, num_probes, residual_sd)
    fit = shrink_log_influence(estimate, num_probes)
    noise = polygamma(1, num_probes / 2)
    assert fit.noise_variance == pytest.approx(noise)
    # Variance of the pooled residual variance of N D terms: (fourth cumulant of log chi^2 + 2 (noise + signal)^2) / (N D).
    error = math.sqrt((polygamma(3, num_probes / 2) + 2 * (noise + residual_sd**2) ** 2) / (samples * dimensions))
    assert abs(float(fit.residual_variance.mean()) - residual_sd**2) < 5 * error
    level_error = (fit.level - truth.log().flatten(1).mean(1)).std() / math.sqrt(samples)
    assert abs(float((fit.level - truth.log().flatten(1).mean(1)).mean())) < 5 * float(level_error)


@pytest.mark.parametrize(
    ("samples", "channels", "positions"), [(2, 1, 2), (2, 2, 1), (3, 1, 2), (7, 3, 4), (1, 2, 3), (5, 1, 1)]
)
def test_residual_variance_and_standard_error_equal_a_two_way_table(samples, channels, positions):
    num_probes, noise = 3, float(polygamma(1, 1.5))
    estimate = torch.tensor(np.random.default_rng(samples).lognormal(0, 3, (samples, channels, 1, positions)))
    table = np.log(estimate.flatten(1).numpy())
    residual = table - table.mean(1, keepdims=True) - table.mean(0) + table.mean()
    dimensions = channels * positions
    by_dimension = np.zeros(dimensions)
    if samples > 1 and dimensions > 1:
        # Mean squares of the interaction: (N - 1)(D - 1) degrees of freedom over D dimensions.
        by_dimension = (residual**2).sum(0) / ((samples - 1) * (dimensions - 1) / dimensions) - noise
    by_channel = np.repeat(by_dimension.reshape(channels, positions).mean(1), positions)
    for kind, expected in (("dimension", by_dimension), ("channel", by_channel), ("none", np.zeros(dimensions))):
        fit = shrink_log_influence(estimate, num_probes, kind)
        variance = np.maximum(expected, 0)
        np.testing.assert_allclose(fit.residual_variance.flatten(), variance, rtol=1e-9, atol=1e-12)
        # Posterior variance, and that of the prior's mean as far as the posterior leans on it.
        lean = noise / (variance + noise)
        error = np.sqrt((1 - lean) * noise + lean**2 * (variance + noise) / samples)
        np.testing.assert_allclose((fit.standard_error / fit.influence).flatten(1), np.tile(error, (samples, 1)), rtol=1e-9)


def test_shrinking_keeps_the_precision():
    _, estimate = lognormal_set(5, 6, 4, residual_sd=0.3)
    fit = shrink_log_influence(estimate.float(), 4)
    assert (fit.influence.dtype, fit.standard_error.dtype) == (torch.float32, torch.float32)


def test_pure_noise_leaves_no_residual():
    _, estimate = lognormal_set(400, 30, 2, residual_sd=0.0, seed=4)
    by_dimension = shrink_log_influence(estimate, 2, "dimension").residual_variance
    assert (by_dimension >= 0).all()
    assert (by_dimension == 0).any()


def test_posterior_mode_equals_a_grid_search():
    _, estimate = lognormal_set(20, 8, 3, residual_sd=0.9, seed=2)
    fit = shrink_log_influence(estimate, 3, "dimension")
    variance = fit.residual_variance.flatten().numpy()
    positive = variance > 0
    assert positive.sum() >= 4
    expected = shrunk_log_influence(estimate.flatten(1).numpy(), 3, np.maximum(variance, 1e-12))
    found = fit.influence.flatten(1).log().numpy()
    np.testing.assert_allclose(found[:, positive], expected[:, positive], atol=2e-4)


@pytest.mark.parametrize("factor", [1e-30, 1e30])
def test_posterior_mode_of_a_wild_value_equals_a_grid_search(factor):
    estimate = torch.full((12, 1, 1, 3), 2.0, dtype=torch.float64) * torch.tensor([0.5, 1, 2])
    estimate[3, 0, 0, 1] *= factor
    fit = shrink_log_influence(estimate, 2, "dimension")
    variance = fit.residual_variance.flatten()
    level, mean = fit.level[3], fit.dimension_mean.flatten()[1]
    assert variance[1] > 0
    grid = torch.linspace(-80, 80, 3_200_001, dtype=torch.float64)
    objective = -(grid + estimate[3, 0, 0, 1] * torch.exp(-grid)) - (grid - level - mean).square() / (2 * variance[1])
    assert float(fit.influence[3, 0, 0, 1].log()) == pytest.approx(float(grid[objective.argmax()]), abs=1e-4)


def test_no_residual_means_one_ranking_for_all():
    _, estimate = lognormal_set(20, 40, 4, residual_sd=0.3)
    fit, index = shrink_log_influence(estimate, 4, "none"), torch.arange(20)
    masks = KeepTopInfluence(0.6)(fit.influence, index)
    assert (masks == masks[0]).all()


def test_one_sample_or_many_probes_are_left_alone():
    _, estimate = lognormal_set(1, 30, 4, residual_sd=0.3)
    bias = digamma(2) - math.log(2)
    torch.testing.assert_close(shrink_log_influence(estimate, 4).influence, estimate * math.exp(-bias))
    truth, estimate = lognormal_set(50, 30, 1_000_000, residual_sd=0.3)
    torch.testing.assert_close(shrink_log_influence(estimate, 1_000_000).influence, truth, rtol=0.01, atol=0)


def test_shrunk_standard_error_covers():
    truth, estimate = lognormal_set(300, 60, 8, residual_sd=0.4, seed=7)
    fit = shrink_log_influence(estimate, 8)
    z = (fit.influence.log() - truth.log()) / (fit.standard_error / fit.influence)
    # The prior's variance is estimated and the posterior not quite normal: the scale is right within a tenth.
    assert 0.9 < float(z.std()) < 1.1


def test_shrunk_influence_is_the_fit_of_probe_influence():
    latent, index = normal(6, 2, 3, 3), torch.arange(6)
    shrunk = ShrunkInfluence(4, seed=2)(smooth, latent, index)
    plain = ProbeInfluence(4, seed=2)(smooth, latent, index)
    fit = shrink_log_influence(plain.influence, 4)
    assert torch.equal(shrunk.influence, fit.influence)
    halves = [shrink_log_influence(half, 2).influence for half in plain.halves.unbind(1)]
    torch.testing.assert_close(shrunk.halves, torch.stack(halves, dim=1))
    masks = [KeepTopInfluence(0.6)(half, index) for half in halves]
    torch.testing.assert_close(shrunk.mask_stability, mask_overlap(*masks))
    probes = normal(6, 9, 3, 6, 6, seed=1)
    given = ShrunkInfluence(4)(smooth, latent, index, probes)
    fit = shrink_log_influence(ProbeInfluence()(smooth, latent, index, probes).influence, 9)
    assert torch.equal(given.influence, fit.influence)
    single, plain = ShrunkInfluence(1)(smooth, latent, index), ProbeInfluence(1)(smooth, latent, index)
    fit = shrink_log_influence(plain.influence, 1)
    assert torch.equal(single.influence, fit.influence)
    assert torch.equal(single.standard_error, fit.standard_error)
    assert (single.mask_stability, single.halves) == (None, None)


@pytest.mark.parametrize("num_probes", [1, 4])
@pytest.mark.parametrize("num_bytes", [None, 0])
def test_some_rows_of_a_shrunk_set_are_those_of_the_whole(num_probes, num_bytes, limit_memory):
    estimator = ShrunkInfluence(num_probes)
    estimate = estimator.per_sample(smooth, normal(6, 2, 3, 3), torch.arange(6))
    whole = concatenate(list(estimator.over_set(estimate)))
    if num_bytes is not None:
        limit_memory(num_bytes)  # one sample at a time
    parts = list(estimator.over_set(estimate, slice(2, 5)))
    assert [len(part.influence) for part in parts] == ([3] if num_bytes is None else [1, 1, 1])
    found, expected = concatenate(parts).tensors(), whole.rows(slice(2, 5)).tensors()
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


@pytest.mark.parametrize("kind", ["channel", "dimension", "none"])
def test_shrunk_influence_and_its_halves_have_the_residual_variance_that_was_asked_for(kind):
    latent, index = normal(6, 2, 3, 3), torch.arange(6)
    shrunk = ShrunkInfluence(5, residual_variance=kind)(smooth, latent, index)
    plain = ProbeInfluence(5)(smooth, latent, index)
    assert torch.equal(shrunk.influence, shrink_log_influence(plain.influence, 5, kind).influence)
    for part in range(2):
        half = shrink_log_influence(plain.halves[:, part], 2, kind).influence
        assert torch.equal(shrunk.halves[:, part], half)


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(INFLUENCE_ESTIMATORS))
def test_a_latent_the_decoder_cannot_take(name):
    estimator = INFLUENCE_ESTIMATORS.get(name)()
    with pytest.raises(UserError, match=r"latent of shape \(\d, 5, 3, 3\): .*4 channels"):
        estimator(lambda z: F.conv2d(z, torch.zeros(3, 4, 1, 1)), normal(2, 5, 3, 3), torch.arange(2))
    with pytest.raises(UserError, match="float latents"):
        estimator(smooth, normal(2, 3, 3), torch.arange(2))
    with pytest.raises(UserError, match="must keep the batch"):
        estimator(lambda z: z[:1], normal(3, 2, 3, 3), torch.arange(3))


@pytest.mark.parametrize("name", list(INFLUENCE_ESTIMATORS))
def test_influence_that_is_not_finite_names_the_sample(name):
    latent = normal(3, 2, 3, 3)
    latent[1] = float("nan")
    with pytest.raises(UserError, match="sample 52"):
        INFLUENCE_ESTIMATORS.get(name)()(smooth, latent, torch.tensor([51, 52, 53]))


def test_wrong_arguments():
    for estimator in (ProbeInfluence, ShrunkInfluence):
        with pytest.raises(UserError, match="num_probes"):
            estimator(0)
        with pytest.raises(UserError, match="keep_fraction"):
            estimator(keep_fraction=1.5)
        with pytest.raises(UserError, match=r"probes of shape \(2, 4, 3, 5, 5\)|don't fit"):
            estimator()(smooth, normal(2, 2, 3, 3), torch.arange(2), normal(2, 4, 3, 5, 5))
        for shape in ((3, 4, 3, 6, 6), (2, 0, 3, 6, 6), (2, 4)):
            with pytest.raises(UserError, match=r"probes of shape .* don't fit 2 samples"):
                estimator()(smooth, normal(2, 2, 3, 3), torch.arange(2), torch.zeros(shape))
        with pytest.raises(UserError, match="probe_batch_size"):
            estimator(probe_batch_size=0)
        with pytest.raises(UserError, match="batch_size"):
            stream_influence(estimator(), smooth, normal(2, 2, 3, 3), torch.arange(2), batch_size=0)
    with pytest.raises(UserError, match="distribution"):
        ProbeInfluence(distribution="uniform")
    with pytest.raises(UserError, match="num_probes"):
        shrink_log_influence(torch.ones(2, 1, 1, 2), 0)
    with pytest.raises(UserError, match="residual_variance"):
        ShrunkInfluence(residual_variance="pixel")
    with pytest.raises(ValueError, match="sample_index"):
        ProbeInfluence()(smooth, normal(2, 2, 3, 3), torch.arange(3))
