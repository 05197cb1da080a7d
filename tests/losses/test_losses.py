"""Losses of stage 1: values by hand, gradients that are not zero."""

import pytest
import torch

from ldm_privacy.losses.base import Autoencoded
from ldm_privacy.registry import LOSSES


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    image, output = (torch.rand(3, 1, 8, 8, generator=generator) * 2 - 1 for _ in range(2))
    mean, log_variance = (torch.randn(3, 4, 4, 4, generator=generator) for _ in range(2))
    return Autoencoded(image, *(each.requires_grad_() for each in (mean, log_variance, output)))


def test_kl_is_the_divergence_from_a_standard_normal(batch):
    posterior = torch.distributions.Normal(batch.mean, (0.5 * batch.log_variance).exp())
    expected = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0)).mean()
    torch.testing.assert_close(LOSSES.get("kl")()(batch), expected)


@pytest.mark.parametrize(("name", "power"), [("l1", 1), ("l2", 2)])
def test_reconstruction_is_the_mean_distance_of_the_pixels(batch, name, power):
    difference = (batch.output - batch.image).flatten().tolist()
    by_hand = sum(abs(each) ** power for each in difference) / len(difference)
    assert float(LOSSES.get(name)()(batch)) == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_every_loss_is_a_number_that_trains_something(batch, name):
    loss = LOSSES.get(name)(weight=2.0)
    assert loss.weight == 2.0
    value = loss(batch)
    assert value.shape == ()
    gradients = torch.autograd.grad(value, [batch.mean, batch.log_variance, batch.output], allow_unused=True)
    assert any(gradient is not None and bool((gradient != 0).any()) for gradient in gradients)
