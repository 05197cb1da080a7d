"""Looking at averaged weights: they stand in for the network's own while it is looked at."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ldm_privacy.errors import UserError


@contextmanager
def averaged(network: nn.Module, average: Any) -> Iterator[None]:
    """Inside, the network's parameters hold the average; afterwards the very same tensors as before.

    Nothing is copied or changed, but where the average lies on another device or has another dtype: then it is copied there.

    Args:
        network: Without wrappers.
        average: Of it: an `EMAModel` of diffusers, made of `network.parameters()` or of the trained ones among them, or torch's
            `AveragedModel`; None: nothing happens.

    Raises:
        UserError: It is something else, or of other parameters.
    """
    pairs = [] if average is None else _pairs(network, average)
    own = [parameter.data for parameter, _ in pairs]
    try:
        for parameter, mean in pairs:
            parameter.data = mean.detach().to(parameter.device, parameter.dtype)
        yield
    finally:
        for (parameter, _), data in zip(pairs, own):
            parameter.data = data


def _pairs(network: nn.Module, average: Any) -> list[tuple[Tensor, Tensor]]:
    """Each averaged parameter of the network, or buffer, with its average."""
    everything: list[Tensor] = list(network.parameters())
    means: Any
    trained = [each for each in everything if each.requires_grad]
    if isinstance(average, torch.optim.swa_utils.AveragedModel):
        means = list(average.module.parameters())
        if getattr(average, "use_buffers", False):
            everything, means = [*everything, *network.buffers()], [*means, *average.module.buffers()]
    elif isinstance(means := getattr(average, "shadow_params", None), list):
        pass
    else:
        kind = type(average).__name__
        raise UserError(f"ema: a {kind} is no EMAModel of diffusers and no AveragedModel of torch; leave it out.")
    for mine in (everything, trained):
        if [each.shape for each in mine] == [each.shape for each in means]:
            return list(zip(mine, means))
    raise UserError(
        f"ema: it averages {len(means)} parameters, and the network has {len(everything)}, of which {len(trained)} are "
        "trained: make it of the network's own parameters, in their order."
    )
