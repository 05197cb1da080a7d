"""Weights that are read from files: refused where a name is missing, unknown or of another shape."""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, TypeVar

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from ldm_privacy.errors import UserError

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
        raise UserError(f"{what} can't be used ({(str(error) or type(error).__name__).splitlines()[0]})") from None
    if wrong := misfit(expected, state):
        raise UserError(f"{what} can't be used: the weights don't fit its settings ({wrong})")
    network = build()
    network.load_state_dict(state)
    return network


def misfit(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str | None:
    """How stored weights differ in names and shapes from those of a network, in words; None where they fit."""
    if missing := [name for name in expected if name not in state]:
        return f"{len(missing)} weights are missing, the first '{missing[0]}'"
    if unknown := [name for name in state if name not in expected]:
        return f"{len(unknown)} weights are unknown, the first '{unknown[0]}'"
    for name, weight in expected.items():
        stored = state[name]
        if stored.shape != weight.shape:
            return f"'{name}' has shape {tuple(stored.shape)}, not {tuple(weight.shape)}"
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
