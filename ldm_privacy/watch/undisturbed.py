"""Looking at a model that trains without leaving a trace: weights, modes, gradients and random states are what they were."""

import random
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn


@contextmanager
def undisturbed(*networks: nn.Module) -> Iterator[None]:
    """Inside, the networks are in evaluation mode and frozen, their gradients put away, autocast and torch.compile off.

    Afterwards all is as before, of every module and parameter, and so are the states of Python's, NumPy's and torch's
    generators (of every device), so a training goes on to the last bit as if nobody had looked.
    """
    modes = [(module, module.training) for network in networks for module in network.modules()]
    parameters = {id(each): each for network in networks for each in network.parameters()}.values()
    before = [(each, each.grad, each.requires_grad) for each in parameters]
    device = next((each.device.type for each in parameters), "cpu")
    with ExitStack() as stack:
        stack.enter_context(_random_states())
        stack.enter_context(torch.autocast("cpu" if device == "meta" else device, enabled=False))
        stack.enter_context(torch.no_grad())
        if "torch._dynamo" in sys.modules:  # other batch shapes would be compiled for, and count toward the limit of that
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        try:
            for network in networks:
                network.eval()
            for parameter, _, _ in before:
                parameter.grad = None
                # Of a frozen one autocast keeps no copy of lower precision, which the next step would be given.
                parameter.requires_grad_(False)
            yield
        finally:
            for module, is_training in modes:
                module.training = is_training
            for parameter, gradient, is_trained in before:
                parameter.requires_grad_(is_trained)
                parameter.grad = gradient


@contextmanager
def _random_states() -> Iterator[None]:
    """The generators' states are afterwards what they are now; a device that nobody uses yet has none."""
    devices: dict[Any, Any] = {each: each.get_rng_state_all() for each in (torch.cuda, torch.xpu) if each.is_initialized()}
    apple = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        for module, of_all in devices.items():
            module.set_rng_state_all(of_all)
        if apple is not None:
            torch.mps.set_rng_state(apple)
