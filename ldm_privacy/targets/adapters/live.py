"""Adapters of peft inside a network: taken off and put on again, to the last bit."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from ldm_privacy.errors import UserError


def adapted(network: nn.Module) -> list[Any]:
    """The modules of a network that hold an adapter of peft, however it came there."""
    return [each for each in network.modules() if isinstance(getattr(each, "disable_adapters", None), bool)]


def trains_outside(network: nn.Module) -> bool:
    """Whether anything of a network is trained that no adapter of peft holds, so that taking those off gives no base."""
    held = [getattr(layer, name, None) for layer in adapted(network) for name in getattr(layer, "adapter_layer_names", ())]
    inside = {id(each) for part in held if isinstance(part, nn.Module) for each in part.parameters()}
    return any(each.requires_grad and id(each) not in inside for each in network.parameters())


@contextmanager
def without_adapters(*networks: nn.Module) -> Iterator[None]:
    """Inside, the networks are their bases; afterwards their adapters are as before.

    Layer by layer, by the flag alone: an injected adapter, a `PeftModel` and a text model have no common switch, and each of
    their own switches forgets what was off before, and what was frozen.

    Raises:
        UserError: No adapter is there, or it is merged into the weights: taking it off would round.
    """
    layers = [layer for network in networks for layer in adapted(network)]
    if not layers:
        raise UserError(f"reference: {type(networks[0]).__name__} has no adapter of peft to take off; give another reference.")
    if any(getattr(layer, "merged", False) for layer in layers):
        raise UserError("reference: the adapter is merged (fused) into the weights; unmerge it, or give another reference.")
    were = [layer.disable_adapters for layer in layers]
    try:
        for layer in layers:
            layer._disable_adapters = True
        yield
    finally:
        for layer, was_off in zip(layers, were):
            layer._disable_adapters = was_off
