"""Weights that are read from files: the only ways into a network, which refuse a name that is missing, unknown or other."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
from pydantic import Field, PositiveInt
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ldm_privacy.errors import UserError, reason_of

Channels = Annotated[Sequence[PositiveInt], Field(min_length=1)]
"""Per resolution, finest first."""
Network = TypeVar("Network", bound=nn.Module)


def built_with(build: Callable[[], Network], state: object, what: str) -> Network:
    """The network that `build` makes, with stored weights in it.

    It is built without memory first, and not at all before its names and shapes are known to be those of the weights: what a
    file says of sizes is not trusted. Raises UserError where the settings make no network, or the weights are of other names
    or shapes.

    Args:
        build: Makes the network; called twice.
        state: The stored weights.
        what: The network, as messages say it ("its denoiser").
    """
    if not isinstance(state, dict) or not all(isinstance(each, Tensor) for each in state.values()):
        raise UserError(f"the weights of {what} are missing or hold something else")
    try:
        with torch.device("meta"):
            expected = build().state_dict()
    except Exception as error:  # libraries raise whatever they stumble over in settings that they don't check
        raise UserError(f"{what} can't be used ({reason_of(error)})") from None
    _require_fit(expected, state, f"{what} can't be used: the weights don't fit its settings")
    network = build()
    network.load_state_dict(state)
    return network


def load_weights(network: nn.Module, state: object, what: str) -> None:
    """Put stored weights into a network that is there already.

    This and `built_with` are the only ways from a file into a network: a loader that leaves a weight as it was, or one of the
    file unused, gives numbers of nothing. Raises UserError, and changes nothing, where a weight is missing, unknown or other.

    Args:
        network: What they belong to.
        state: The stored weights.
        what: Where they come from, as messages say it ("last.ckpt").
    """
    _require_fit(network.state_dict(), state, f"{what}: the weights don't fit the network")
    network.load_state_dict(state)  # type: ignore[arg-type]


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name, on the CPU. Raises UserError where it is none, or not whole."""
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path}: can't be read, it is truncated or no safetensors file ({reason_of(error)}).") from None


def misfit(expected: Mapping[str, Tensor], state: Mapping[str, Any]) -> str | None:
    """How stored weights differ from those of a network, in words, each kind with its number and first name; None: they fit."""
    missing = [f"'{name}'" for name in expected if name not in state]
    unknown = [f"'{name}'" for name in state if name not in expected]
    other = [said for name, weight in expected.items() if name in state and (said := _difference(name, weight, state[name]))]
    kinds = (("are missing", missing), ("are unknown", unknown), ("don't match", other))
    return "; ".join(f"{len(each)} weights {what}, the first {each[0]}" for what, each in kinds if each) or None


def _require_fit(expected: Mapping[str, Tensor], state: object, problem: str) -> None:
    if not isinstance(state, Mapping):
        raise UserError(f"{problem} (there are none)")
    if wrong := misfit(expected, state):
        raise UserError(f"{problem} ({wrong})")


def _difference(name: str, weight: Tensor, stored: Any) -> str | None:
    if not isinstance(stored, Tensor):
        return f"'{name}' is no tensor"
    if stored.shape != weight.shape:
        return f"'{name}' has shape {tuple(stored.shape)}, not {tuple(weight.shape)}"
    if stored.is_floating_point() != weight.is_floating_point():
        return f"'{name}' holds {stored.dtype}, not {weight.dtype}"
    # A weight that repeats a few stored numbers could ask for any amount of memory.
    if stored.layout != torch.strided or stored.untyped_storage().nbytes() < stored.numel() * stored.element_size():
        return f"'{name}' is not stored whole"
    return None


def check_groups(key: str, block_out_channels: Sequence[int], norm_num_groups: int) -> None:
    """Raise UserError where a group normalisation can't divide its channels."""
    for channels in block_out_channels:
        if channels % norm_num_groups:
            raise UserError(
                f"{key}.block_out_channels: {channels} is not a multiple of {key}.norm_num_groups = {norm_num_groups}."
            )
