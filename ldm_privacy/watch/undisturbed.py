"""Looking at a model that trains without leaving a trace: weights, modes, gradients and random states are what they were."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn


@contextmanager
def undisturbed(network: nn.Module) -> Iterator[None]:
    """Inside, `network` is in evaluation mode, its gradients are put away, autocast is off; afterwards all is as before.

    The states of Python's, NumPy's and torch's generators (of every CUDA device) are restored too, so a training goes on to the
    last bit as if nobody had looked.
    """
    modes = [(module, module.training) for module in network.modules()]
    gradients = [(parameter, parameter.grad) for parameter in network.parameters()]
    states = random.getstate(), np.random.get_state()
    device = next((parameter.device.type for parameter in network.parameters()), "cpu")
    autocast_off = torch.autocast("cpu" if device == "meta" else device, enabled=False)
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())), autocast_off, torch.no_grad():
        try:
            network.eval()
            for parameter, _ in gradients:
                parameter.grad = None
            yield
        finally:
            for module, is_training in modes:
                module.training = is_training
            for parameter, gradient in gradients:
                parameter.grad = gradient
            random.setstate(states[0])
            np.random.set_state(states[1])
