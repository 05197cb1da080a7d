"""A look leaves nothing behind: modes, gradients, random states."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from ldm_privacy.watch.undisturbed import undisturbed


def network():
    """A part of it is kept in evaluation mode, as frozen encoders are."""
    made = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1)).train()
    made[1].eval()
    made(torch.randn(5, 3)).sum().backward()
    made[3].bias.grad = None
    made[0].bias.requires_grad_(False)
    return made


def states():
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()


def look(it):
    """Everything that a look could disturb."""
    random.random(), np.random.rand(3), torch.randn(4)
    assert not any(module.training for module in it.modules())
    assert not torch.is_grad_enabled()
    assert not torch.is_autocast_enabled("cpu")
    assert all(parameter.grad is None for parameter in it.parameters())
    assert not any(parameter.requires_grad for parameter in it.parameters())
    with torch.enable_grad():
        it.requires_grad_()(torch.randn(5, 3)).sum().backward()
    torch.manual_seed(5)


@pytest.mark.parametrize("fails", [False, True])
def test_everything_is_as_it_was_even_where_the_look_fails(fails):
    it = network()
    modes = [module.training for module in it.modules()]
    trained = [parameter.requires_grad for parameter in it.parameters()]
    gradients = [parameter.grad for parameter in it.parameters()]
    values = [None if each is None else each.clone() for each in gradients]
    buffers = [buffer.clone() for buffer in it.buffers()]
    before = states()
    with torch.autocast("cpu", torch.bfloat16):
        try:
            with undisturbed(it):
                look(it)
                if fails:
                    raise KeyError
        except KeyError:
            assert fails
        assert torch.is_autocast_enabled("cpu")
    assert torch.is_grad_enabled()
    assert states() == before
    assert [module.training for module in it.modules()] == modes
    assert [parameter.requires_grad for parameter in it.parameters()] == trained
    assert all(parameter.grad is gradient for parameter, gradient in zip(it.parameters(), gradients))
    assert all(value is None or torch.equal(gradient, value) for value, gradient in zip(values, gradients))
    assert all(torch.equal(buffer, value) for buffer, value in zip(it.buffers(), buffers))


def test_a_network_without_parameters_can_be_looked_at():
    with undisturbed(nn.Dropout(0.5)):
        pass
