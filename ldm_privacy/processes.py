"""Several processes that compute one thing: who this one is, what its share is, what they tell each other.

The main process prints, writes and draws; the others compute their share. With one process every function here is a plain call:
nothing is sent or waited for. Where torch.distributed is initialised, by whomever, all processes must call them alike.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")

PATIENCE = timedelta(days=1)
"""How long processes wait for one that draws or generates images; one that is dead is noticed at once."""


class _World:
    """The group that messages go through: gloo, so that they stay on the CPU whatever the gradients use."""

    group: dist.ProcessGroup | None = None
    of: object = None
    is_alone = False


def rank() -> int:
    """Number of this process, 0 = the main one; known before the group is there."""
    if dist.is_initialized():
        return dist.get_rank()
    return int(os.environ.get("RANK" if is_torchrun() else "LOCAL_RANK", 0))


def world_size() -> int:
    """Number of processes that compute together; 1 where torch.distributed is not initialised."""
    return dist.get_world_size() if dist.is_initialized() and not _World.is_alone else 1


def is_main() -> bool:
    """Whether this process prints and writes."""
    return rank() == 0


def is_torchrun() -> bool:
    """Whether torchrun started this process."""
    return dist.is_available() and dist.is_torchelastic_launched()


@contextmanager
def alone() -> Iterator[None]:
    """Inside, this process computes everything by itself, whatever the others do."""
    before, _World.is_alone = _World.is_alone, True
    try:
        yield
    finally:
        _World.is_alone = before


def share_of(count: int) -> slice:
    """This process's part of `count` things in order: contiguous, sizes differ by one at most, together everything once."""
    number, of = rank() if world_size() > 1 else 0, world_size()
    return slice(count * number // of, count * (number + 1) // of)


def gather(value: T) -> list[T]:
    """The values of all processes, by their number, in every process. Tensors must lie on the CPU."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value, group=_group())
    return values


def gather_on_main(value: T) -> list[T]:
    """As `gather`, but the other processes get their own value alone: no memory for what they don't need."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.gather_object(value, values if is_main() else None, dst=0, group=_group())
    return values if is_main() else [value]


def on_main(function: Callable[[], T]) -> T:
    """What `function` returns in the main process, which alone calls it, in every process."""
    if world_size() == 1:
        return function()
    value: list[Any] = [function() if is_main() else None]
    dist.broadcast_object_list(value, src=0, group=_group())
    return value[0]


def total(value: Tensor) -> Tensor:
    """Sum over the processes, in the order of their numbers, on the device of `value`."""
    return value if world_size() == 1 else torch.stack(gather(value.cpu())).sum(0).to(value.device)


def add_up(values: Sequence[Tensor]) -> None:
    """Replace each by its sum over the processes: on its device, through the group that gradients use."""
    if world_size() == 1:
        return
    flat = torch.cat([value.flatten() for value in values])
    dist.all_reduce(flat)
    for value, found in zip(values, flat.split([value.numel() for value in values]), strict=True):
        value.copy_(found.view_as(value))


def leave() -> None:
    """End the groups, and with them the threads that carry their messages: none may outlive the interpreter."""
    _World.group = _World.of = None
    dist.destroy_process_group()


def _group() -> dist.ProcessGroup | None:
    """Made when it is first needed, once for each initialisation of torch.distributed."""
    if _World.of is not dist.group.WORLD:
        _World.group, _World.of = dist.new_group(backend="gloo", timeout=PATIENCE), dist.group.WORLD
    return _World.group
