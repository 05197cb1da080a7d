"""What a training script holds, as parts of a target: its autoencoder, its network, and the base that it started from."""

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ldm_privacy.errors import UserError
from ldm_privacy.models.codec import Codec
from ldm_privacy.models.text.script import nested
from ldm_privacy.targets.adapters.live import without_adapters
from ldm_privacy.targets.target import unwrapped

Context = Callable[[], AbstractContextManager[Any]]
Predict = Callable[[Any, Tensor, Tensor, dict[str, Any]], Any]
"""(network, state, time, condition) -> output like the state: how a network is called that takes other arguments."""


def codec_of(vae: nn.Module) -> Codec:
    """A float32 copy of an AutoencoderKL where that lies, with the scaling of diffusers: what half precision overflows on.

    The script's own stays as it is. Raises UserError where it is another kind of autoencoder.
    """
    inner: Any = unwrapped(vae)
    if not {"latent_channels", "scaling_factor"} <= {*getattr(inner, "config", {})}:
        raise UserError(f"vae: a {type(inner).__name__} is no AutoencoderKL of diffusers; give codec= instead.")
    from ldm_privacy.models.kl import KLCodec

    return KLCodec.scaled(copy.deepcopy(inner).float())


class Called(nn.Module):
    """A network as a script calls it: with mappings among its arguments (`added_cond_kwargs`), and inside a context.

    Args:
        network: (z_t, t, **arguments) -> output.
        context: Entered around each pass; None: none is.
        predict: The call itself; None: network(z_t, t, **arguments).
    """

    def __init__(self, network: nn.Module, context: Context | None = None, predict: Predict | None = None):
        super().__init__()
        self.network, self.context, self.predict = network, context, predict

    def forward(self, noisy_latent: Tensor, timestep: Tensor, **condition: Tensor) -> Any:
        """What the network returns. `condition`: `argument.entry` is an entry of an argument that is a mapping."""
        with nullcontext() if self.context is None else self.context():
            if self.predict is not None:
                return self.predict(self.network, noisy_latent, timestep, nested(condition))
            return self.network(noisy_latent, timestep, **nested(condition))


class Base(NamedTuple):
    """A reference: its network, the context in which that is the base (None: always), and what it is in words."""

    network: nn.Module
    context: Context | None
    words: str


def base_of(reference: Any, network: nn.Module, *others: nn.Module) -> Base | None:
    """The reference that a script names.

    Args:
        reference: "adapter": the network without its adapter of peft; a frozen network; a function that gives a context in
            which the network is the base; None: there is none.
        network: That trains, without wrappers.
        others: Networks whose adapters are taken off with the network's, where they have any.

    Raises:
        UserError: It is something else.
    """
    if reference is None:
        return None
    if isinstance(reference, nn.Module):
        inner = unwrapped(reference)
        return Base(inner, None, f"another {type(inner).__name__}")
    if reference == "adapter":
        words = f"{type(network).__name__} with its adapter off"
        return Base(network, partial(without_adapters, network, *others), words)
    if callable(reference):
        return Base(network, reference, f"{type(network).__name__} in a context of the script")
    raise UserError(f"reference: {reference!r} is neither 'adapter', a network, nor a function that gives a context.")


def check_whole(network: nn.Module) -> None:
    """Raise UserError where a process holds a part of the weights alone: a pass of one process would wait for the others."""
    kinds = {type(each).__name__ for each in network.modules()}
    parameters = list(network.parameters())
    sharded = {
        "FullyShardedDataParallel": "FullyShardedDataParallel" in kinds,
        "fully_shard": any(type(each.data).__name__ == "DTensor" for each in parameters),
        "DeepSpeed ZeRO-3": any(hasattr(each, "ds_id") for each in parameters),
    }
    for name, is_so in sharded.items():
        if is_so:
            raise UserError(
                f"watch: the weights are sharded over the processes ({name}), and a look needs them whole: train with DDP or "
                "ZeRO-2, or audit saved checkpoints with evaluate.py."
            )


def in_words(network: nn.Module) -> str:
    """Class, size and precision of a network."""
    count: dict[torch.dtype, int] = {}
    for each in network.parameters():
        count[each.dtype] = count.get(each.dtype, 0) + each.numel()
    trained = sum(each.numel() for each in network.parameters() if each.requires_grad)
    dtypes = ", ".join(f"{number:,} in {str(dtype).removeprefix('torch.')}" for dtype, number in count.items())
    return f"{type(network).__name__}, {dtypes or 'no parameters'}, {trained:,} trained"
