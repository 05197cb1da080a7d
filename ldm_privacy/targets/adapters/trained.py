"""A LoRA that trains: what is trained, averaged and stored is the adapter alone, and the base stays what it was."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from ldm_privacy.errors import UserError


class Lora(nn.Module):
    """A frozen network with an adapter: beside each chosen module, scale * lora_B(lora_A(x)) is added to its output.

    Source: Hu et al. 2021, 2106.09685, section 4.1: lora_A begins at random (from the global random state), lora_B at zero, so
    the network is its base before the first step. The base is no part of the module: it is not averaged, stored or copied with
    it, and `state_dict` holds diffusers' own names of a LoRA ("unet.<module>.lora_A.weight").

    Args:
        base: Frozen here, in evaluation mode for good.
        rank: Of each module's change.
        alpha: The change counts alpha / rank times; None: as the rank.
        targets: Which modules: the ends of their names. UserError where one means no linear layer and no convolution.
    """

    def __init__(self, base: nn.Module, *, rank: int, alpha: float | None = None, targets: Sequence[str]):
        super().__init__()
        self._held = _Held(base.eval().requires_grad_(False))
        self.is_on, self.scale = True, (rank if alpha is None else alpha) / rank
        self.unet, self.factors = nn.Module(), dict[str, LowRank]()
        modules = {name: each for name, each in base.named_modules() if isinstance(each, nn.Linear | nn.Conv2d)}
        for target in targets:
            chosen = {name: each for name, each in modules.items() if f".{name}".endswith(f".{target}")}
            if not chosen:
                raise UserError(f"denoiser.adapter.targets: '{target}' is the end of no linear layer's or convolution's name.")
            for name, module in chosen.items():
                if name not in self.factors:
                    self.factors[name] = LowRank(module, rank)
                    _put(self.unet, name, self.factors[name])
                    module.register_forward_hook(_Adding(self._held, name))
        self._held.adapter = self

    @property
    def base(self) -> nn.Module:
        """The network without the adapter, while it is `off`."""
        return self._held.network

    @property
    def config(self) -> Any:
        """The base's: it says what a pass holds in memory."""
        return self.base.config

    def forward(self, *given: Any, **named: Any) -> Any:
        """What the network with its adapter returns."""
        if self._held.adapter is not self:
            self._held.adapter = self
        return self.base(*given, **named)

    @contextmanager
    def off(self) -> Iterator[None]:
        """The base is itself inside, to the last bit."""
        was, self.is_on, self._held.adapter = self.is_on, False, self
        try:
            yield
        finally:
            self.is_on = was

    def _apply(self, fn: Any, recurse: bool = True) -> "Lora":
        self.base._apply(fn)  # it goes along to a device
        return super()._apply(fn, recurse)


class LowRank(nn.Module):
    """lora_B(lora_A(x)), as a linear layer or a convolution of low rank beside one."""

    def __init__(self, module: nn.Linear | nn.Conv2d, rank: int):
        super().__init__()
        self.lora_A: nn.Module
        self.lora_B: nn.Module
        if isinstance(module, nn.Linear):
            self.lora_A = nn.Linear(module.in_features, rank, bias=False)
            self.lora_B = nn.Linear(rank, module.out_features, bias=False)
        else:
            geometry: Any = {"stride": module.stride, "padding": module.padding, "dilation": module.dilation}
            self.lora_A = nn.Conv2d(module.in_channels, rank, module.kernel_size, bias=False, **geometry)  # type: ignore[arg-type]
            self.lora_B = nn.Conv2d(rank, module.out_channels, 1, bias=False)
        nn.init.zeros_(self.lora_B.weight)  # type: ignore[arg-type]

    def forward(self, given: Tensor) -> Tensor:
        return self.lora_B(self.lora_A(given))


class _Held:
    """A network that is neither registered nor copied with the module that holds it: of it and its copies, who asked last."""

    adapter: Lora

    def __init__(self, network: nn.Module):
        self.network = network

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Held":
        return self


class _Adding:
    """The hook of one module."""

    def __init__(self, held: _Held, name: str):
        self.held, self.name = held, name

    def __call__(self, module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        adapter = self.held.adapter
        return output + adapter.scale * adapter.factors[self.name](given[0]) if adapter.is_on else None


def _put(root: nn.Module, name: str, module: nn.Module) -> None:
    """A module under a name with dots in it."""
    *path, last = name.split(".")
    for part in path:
        if part not in root._modules:
            root.add_module(part, nn.Module())
        root = root.get_submodule(part)
    root.add_module(last, module)
