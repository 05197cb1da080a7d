"""A step in parts has the gradient of the step as a whole: the same noise, the parts' gradients added up."""

from types import SimpleNamespace

import pytest
import torch

from ldm_privacy.models.ideal import linear_alphas_cumprod
from ldm_privacy.models.unet import unet
from ldm_privacy.training.denoiser import DenoiserModule
from tests.training.test_stepwise import fit


def module(num_parts, dtype=torch.float32, **options):
    torch.manual_seed(0)
    network = unet(latent_channels=4, latent_size=4, block_out_channels=(8,), norm_num_groups=4, layers_per_block=1)
    latents = torch.randn(2, 22, 4, 4, 4, dtype=dtype)
    settings = {"batch_size": 10, "learning_rate": 1e-3, **options}
    return DenoiserModule(network.to(dtype), linear_alphas_cumprod().to(dtype), latents, num_parts=num_parts, **settings)


def gradients(one, scale=None):
    one.on_fit_start()
    one._trainer = SimpleNamespace(precision_plugin=SimpleNamespace(scaler=None if scale is None else scale))
    torch.manual_seed(1)
    loss = one.loss(torch.arange(7))["loss"]
    (loss if scale is None else scale.scale(loss)).backward()
    return loss.detach(), [each.grad for each in one.network.parameters()]


@pytest.mark.parametrize("num_parts", [2, 3, 7, 9])
def test_the_gradient_is_that_of_the_whole_batch(num_parts):
    (loss, whole), (other, summed) = gradients(module(1, torch.float64)), gradients(module(num_parts, torch.float64))
    torch.testing.assert_close(other, loss, rtol=1e-12, atol=0)
    for mine, expected in zip(summed, whole):
        torch.testing.assert_close(mine, expected, rtol=1e-9, atol=1e-14)


def test_a_weight_without_a_part_in_the_loss_is_left_as_it_is():
    for num_parts in (1, 3):
        one = module(num_parts)
        one.network.unused = torch.nn.Parameter(torch.ones(3))
        found = gradients(one)[1]
        assert one.network.unused.grad is None, "or the weight decay would move it"
        assert sum(each is None for each in found) == 1


def test_no_part_is_larger_than_it_has_to_be():
    one, seen = module(3), []
    one.network.register_forward_pre_hook(lambda network, given: seen.append(len(given[0])))
    gradients(one)
    assert seen == [2, 2, 3]


def test_under_a_loss_scaler_the_parts_are_differentiated_scaled():
    scaled = gradients(module(2, torch.float64), SimpleNamespace(scale=lambda loss: 1024.0 * loss))[1]
    for mine, expected in zip(scaled, gradients(module(1, torch.float64))[1]):
        torch.testing.assert_close(mine, 1024 * expected, rtol=1e-9, atol=1e-11)
    seen = []
    one = module(2)
    next(one.network.parameters()).register_hook(lambda gradient: seen.append(float(gradient.abs().max())))
    gradients(one, SimpleNamespace(scale=lambda loss: 2.0**40 * loss))
    assert min(seen) > 2.0**20, "what is too small for half precision is scaled on its way"


COMPILED = pytest.param({"compile_mode": "default"}, id="compiled", marks=pytest.mark.slow)


@pytest.mark.parametrize("options", [pytest.param({}, id="plain"), COMPILED])
def test_a_training_in_parts_is_the_training(options, traced):
    whole, parts = fit(module(1), max_epochs=2), fit(module(5, **options), max_epochs=2)
    for mine, expected in zip(parts.network.parameters(), whole.network.parameters()):
        torch.testing.assert_close(mine, expected, rtol=1e-3, atol=1e-4)
    assert parts.epoch_means["denoiser/train_loss"] == pytest.approx(whole.epoch_means["denoiser/train_loss"], rel=1e-5)
