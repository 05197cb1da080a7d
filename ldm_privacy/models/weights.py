"""Weights that are read from files: the only ways into a network, which refuse a name that is missing, unknown or other."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
from pydantic import Field, PositiveInt
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from ldm_privacy.errors import UserError, reason_of

Channels = Annotated[Sequence[PositiveInt], Field(min_length=1)]
"""Per resolution, finest first."""
Network = TypeVar("Network", bound=nn.Module)
_OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_DTYPES = {
    **{f"F{bits}": getattr(torch, f"float{bits}") for bits in (64, 32, 16)},
    **{f"I{bits}": getattr(torch, f"int{bits}") for bits in (64, 32, 16, 8)},
    **{"BF16": torch.bfloat16, "U8": torch.uint8, "BOOL": torch.bool},
    **{"F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2},
}
"""Of safetensors files, by the names that they have there."""


def built_with(build: Callable[[], Network], state: object, what: str, *, dtype: torch.dtype | None = None) -> Network:
    """The network that `build` makes, with stored weights in it.

    It is built without memory first, and not at all before its names and shapes are known to be those of the weights: what a
    file says of sizes is not trusted. Weights are held once: what has the network's dtype becomes its own, without a copy.
    Raises UserError where the settings make no network, or the weights are of other names or shapes.

    Args:
        build: Makes the network; called twice.
        state: The stored weights.
        what: The network, as messages say it ("its denoiser").
        dtype: Of its floating-point weights; as `build` makes them where None.
    """
    if not isinstance(state, dict) or not all(isinstance(each, Tensor) for each in state.values()):
        raise UserError(f"the weights of {what} are missing or hold something else")

    def made() -> Network:
        try:
            return build()
        except Exception as error:  # libraries raise whatever they stumble over in settings that they don't check
            raise UserError(f"{what} can't be used ({reason_of(error)})") from None

    with torch.device("meta"):
        expected = made().state_dict()
    _require_fit(expected, state, f"{what} can't be used: the weights don't fit its settings")
    with _parameters_without_memory():  # buffers that no file holds are computed all the same
        network = made()
    kinds = {name: dtype if dtype and each.is_floating_point() else each.dtype for name, each in expected.items()}
    network.load_state_dict({name: state[name].to(kind).contiguous() for name, kind in kinds.items()}, assign=True)
    return network


@contextmanager
def _parameters_without_memory() -> Iterator[None]:
    """Inside, parameters are made as shapes alone; they cost neither memory nor random numbers."""

    def bare(module: nn.Module, name: str, parameter: nn.Parameter | None) -> nn.Parameter | None:
        if parameter is None or parameter.is_meta:
            return None  # as it is
        return nn.Parameter(parameter.to("meta"), requires_grad=parameter.requires_grad)

    hook = register_module_parameter_registration_hook(bare)  # type: ignore[arg-type]
    try:
        yield
    finally:
        hook.remove()


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


def read_safetensors(path: Path, *, prefixes: tuple[str, ...] = ("",)) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name, on the CPU, in memory of their own: what becomes of the file touches none.

    Args:
        path: The file.
        prefixes: Only names that begin with one of them.

    Raises:
        UserError: It is none, or not whole.
    """
    header_of(path)  # checks that header and size belong together
    found = {}
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        entries = json.loads(file.read(size))
        for name, entry in sorted(entries.items(), key=lambda each: each[1].get("data_offsets", [0])):
            if name == "__metadata__" or not name.startswith(prefixes):
                continue
            if entry["dtype"] not in _DTYPES:
                raise UserError(f"{path}: '{name}' holds {entry['dtype']}, which can't be read.")
            found[name] = torch.empty(entry["shape"], dtype=_DTYPES[entry["dtype"]])
            file.seek(8 + size + entry["data_offsets"][0])
            if found[name].numel():
                file.readinto(found[name].flatten().view(torch.uint8).numpy().data)  # type: ignore[attr-defined]
    return found


def header_of(path: Path) -> tuple[list[str], dict[str, str]]:
    """Names and remarks (metadata) of a safetensors file, its header alone. Raises UserError where it is none, or not whole."""
    try:
        with safe_open(path, "pt") as file:
            return list(file.keys()), file.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path}: can't be read, it is truncated or no safetensors file ({reason_of(error)}).") from None


def with_new_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of attention layers of diffusers' first years, Stable Diffusion's among them, under the names of today."""
    old = re.compile(rf"(?<=\.)({'|'.join(_OLD_NAMES)})(?=\.(weight|bias)$)")
    return {old.sub(lambda found: _OLD_NAMES[found[1]], name): weight for name, weight in weights.items()}


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
