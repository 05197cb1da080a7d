"""An adapter that is on for a pass and off otherwise; the base that it belongs to stays as it is."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ldm_privacy.errors import UserError
from ldm_privacy.targets.adapters.file import Factors

_ON: ContextVar["Adapter | None"] = ContextVar("adapter that is on", default=None)
"""Of this thread: one base serves several predictors at once, each with its own adapter or none."""


class Layer:
    """What is added to the output of one linear module or convolution: scale * up(down(x))."""

    def __init__(self, module: nn.Linear | nn.Conv2d, factors: Factors, scale: float):
        self.down, self.up = (each.to(module.weight.device, module.weight.dtype) for each in (factors.down, factors.up))
        self.scale, self.is_reached = scale, False
        self.geometry: dict[str, Any] = {}
        if isinstance(module, nn.Conv2d):
            self.geometry = {"stride": module.stride, "padding": module.padding, "dilation": module.dilation}

    def __call__(self, given: Tensor, output: Tensor) -> Tensor:
        if self.down.device != given.device:
            self.down, self.up = self.down.to(given.device), self.up.to(given.device)
        self.is_reached = True
        if self.geometry:
            return output + F.conv2d(F.conv2d(given, self.down, **self.geometry), self.up) * self.scale
        return output + F.linear(F.linear(given, self.down), self.up) * self.scale


class Adapter:
    """The layers of one adapter. A base's module looks up its own at each call; without one it is what it was, to the last bit.

    Nothing is put into the base but that look-up, and nothing of an adapter stays when it is dropped.

    Args:
        layers: Module of the base -> what is added to its output.
    """

    def __init__(self, layers: Mapping[nn.Module, Layer]):
        self.layers = layers
        for module in layers:
            if _look_up not in module._forward_hooks.values():
                module.register_forward_hook(_look_up)

    @contextmanager
    def on(self) -> Iterator[None]:
        """It counts inside, in this thread."""
        token = _ON.set(self)
        try:
            yield
        finally:
            _ON.reset(token)


def _look_up(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
    adapter = _ON.get()
    layer = None if adapter is None else adapter.layers.get(module)
    return None if layer is None else layer(given[0], output)


class Adapted(nn.Module):
    """A network with an adapter on.

    Args:
        network: The base's, or a wrapper around it.
        adapter: Of that network's modules, and of others'.
        names: Of its modules that the adapter changes -> their layers. A first pass must reach all; otherwise UserError, for
            the network then isn't the one that was trained.
    """

    def __init__(self, network: nn.Module | Callable[..., Any], adapter: Adapter, names: Mapping[str, Layer]):
        super().__init__()
        self.network, self.adapter, self._unreached = network, adapter, dict(names)

    def forward(self, *given: Any, **named: Any) -> Any:
        with self.adapter.on():
            output = self.network(*given, **named)
        if self._unreached:
            self._unreached = {name: layer for name, layer in self._unreached.items() if not layer.is_reached}
            if self._unreached:
                count, first = len(self._unreached), next(iter(self._unreached))
                raise UserError(f"adapter: {count} of its modules aren't called by the network, the first '{first}'.")
        return output
