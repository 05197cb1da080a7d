"""Relaxed distortion and variance of ln influence: closed forms of linear decoders, dense Jacobians, finite differences."""

import pytest
import torch

from ldm_privacy.losses.base import Autoencoded
from ldm_privacy.losses.influence_variance import InfluenceVariance
from ldm_privacy.losses.relaxed_distortion import RelaxedDistortion

D = 12
LATENT = (3, 2, 2)


def linear(matrix, count, seed=0):
    """A batch whose decoder is that matrix, (pixels, D)."""
    generator = torch.Generator().manual_seed(seed)
    mean, image = torch.randn(count, *LATENT, generator=generator).double(), torch.zeros(count, 1, 4, 4).double()
    return Autoencoded(image, mean, mean, image, lambda latent: (latent.flatten(1) @ matrix.T).reshape(-1, 1, 4, 4), seed=seed)


def orthogonal(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(16, D, generator=generator, dtype=torch.float64))[0]


def spread():
    """A matrix of singular values 1 .. D."""
    return orthogonal() * torch.arange(1, D + 1)


def expected_of(matrix):
    eigenvalues = torch.linalg.eigvalsh(matrix.T @ matrix)
    return D * eigenvalues.square().sum() / eigenvalues.sum().square()


def standard_error(matrix, count):
    """Of the ratio of means over that many probes, to first order: both are quadratic forms of normal numbers."""
    power = {k: torch.linalg.eigvalsh(matrix.T @ matrix).pow(k).sum() for k in (1, 2, 3, 4)}
    relative = 2 * (power[4] / power[2] ** 2 + 4 * power[2] / power[1] ** 2 - 4 * power[3] / (power[1] * power[2]))
    return float(expected_of(matrix) * (relative / count).sqrt())


@pytest.mark.parametrize("matrix", [orthogonal(), spread()], ids=["orthogonal", "spread"])
def test_relaxed_distortion_of_a_linear_decoder_is_that_of_its_singular_values(matrix):
    found = float(RelaxedDistortion()(linear(matrix, 4000)).detach())
    assert abs(found - expected_of(matrix)) < 5 * standard_error(matrix, 4000)


def test_relaxed_distortion_is_one_for_an_orthogonal_decoder_and_sees_neither_scale_nor_rotation():
    assert expected_of(orthogonal()) == pytest.approx(1)
    assert expected_of(spread()) > 1.5
    loss, turn = RelaxedDistortion(), torch.linalg.qr(torch.randn(D, D, dtype=torch.float64))[0]
    plain = loss(linear(spread(), 50)).detach()
    torch.testing.assert_close(loss(linear(7 * spread(), 50)).detach(), plain)
    torch.testing.assert_close(loss(linear(spread() @ turn, 50)).detach(), plain)  # the probes are in image space


def test_latents_are_mixed_with_another_samples_and_beyond(batch):
    many = batch._replace(image=torch.zeros(500, 1), mean=torch.arange(500.0).reshape(-1, 1, 1, 1).double())
    share = many.mean.flatten().roll(-1) - RelaxedDistortion.mixed(many).flatten()
    share = share[:-1]  # the last one's neighbour is the first
    assert -0.2 <= share.min() < -0.15
    assert 1.15 < share.max() <= 1.2
    assert abs(share.mean() - 0.5) < 5 * 1.4 / (12 * 499) ** 0.5


@pytest.mark.parametrize("loss", [RelaxedDistortion(), InfluenceVariance(num_probes=2)], ids=lambda each: type(each).__name__)
def test_gradients_are_those_of_finite_differences_and_not_zero(batch, network, loss):
    weights = [each for each in network.decoder.parameters() if each.ndim > 1]
    gradients = torch.autograd.grad(loss(batch), weights)
    generator = torch.Generator().manual_seed(1)
    directions = [torch.randn(each.shape, generator=generator, dtype=torch.float64) for each in weights]
    slope = sum(float((gradient * direction).sum()) for gradient, direction in zip(gradients, directions))
    assert abs(slope) > 1e-3
    step, values = 1e-6, []
    for sign in (1, -1):
        for weight, direction in zip(weights, directions):
            weight.data += sign * step * direction
        values.append(float(loss(batch).detach()))
        for weight, direction in zip(weights, directions):
            weight.data -= sign * step * direction
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(slope, rel=1e-5)


def dense(batch):
    """(batch, pixels, D) of the batch's means."""

    def one(latent):
        return batch.decode(latent[None])[0].flatten()

    return torch.stack(
        [torch.autograd.functional.jacobian(one, mean).reshape(-1, mean.numel()) for mean in batch.mean.detach()]
    )


def test_relaxed_distortion_is_that_of_the_dense_jacobians(batch):
    loss = RelaxedDistortion()
    jacobian = dense(batch._replace(mean=loss.mixed(batch)))
    probe = batch.normal("relaxed distortion", batch.image).flatten(1)
    pulled = torch.einsum("bpd,bp->bd", jacobian, probe)
    pushed = torch.einsum("bpd,bd->bp", jacobian, pulled)
    trace, square = (each.square().sum(1).mean() for each in (pulled, pushed))
    torch.testing.assert_close(loss(batch).detach(), jacobian.shape[2] * square / trace**2)


def test_influence_variance_is_that_of_the_dense_jacobians(batch):
    jacobian = dense(batch)
    probes = torch.stack([batch.normal(f"influence probe {number}", batch.image).flatten(1) for number in range(3)])
    influence = torch.einsum("bpd,kbp->kbd", jacobian, probes).square().mean((0, 1))
    logs = influence.log()
    torch.testing.assert_close(InfluenceVariance(num_probes=3)(batch).detach(), (logs - logs.mean()).square().mean())


def test_influence_variance_of_many_probes_is_that_of_the_exact_influence():
    matrix, count = spread(), 20000
    exact = (matrix.square().sum(0) + 1e-12).log().var(correction=0)
    # ln of a mean of `count` squares has the variance 2 / count, and its bias is the same for every dimension.
    noise = (4 * exact * 2 / count / D) ** 0.5 + 2 / count
    assert abs(InfluenceVariance()(linear(matrix, count, seed=1)).detach() - exact) < 5 * noise
