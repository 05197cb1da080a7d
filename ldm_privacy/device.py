"""What a device does with float32, how much memory passes may take, what is fetched ahead of them, and memory's running out."""

import ctypes
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from time import monotonic
from typing import Any, TypeVar

import torch
from torch import Tensor

from ldm_privacy.errors import UserError

Batch = TypeVar("Batch")
Fetched = TypeVar("Fetched")


class OutOfMemory(UserError):
    """Memory ran out; the message says where and what to lower."""


MEMORY_GIB = {"cpu": 0.25, "cuda": 4.0}
"""Budget of a network pass, by device type. Fixed numbers, not the free memory: two runs on equal machines then batch alike."""

_limit_gib: float | None = None
_given_back = 0.0

_SIGNS = ("can't allocate memory", "out of memory", "ALLOC_FAILED", "calculation overflowed")


def allow_tf32(allowed: bool) -> None:
    """Let CUDA round the factors of float32 products and convolutions to TensorFloat-32, or not; for the whole process."""
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed


@contextmanager
def full_float32() -> Iterator[None]:
    """Inside, CUDA rounds no factor of a float32 product or convolution; for what compares two ways to one number."""
    matmul, cudnn = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    allow_tf32(False)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(matmul)
        torch.backends.cudnn.allow_tf32 = cudnn


def device_of(accelerator: str, *, tf32: bool) -> torch.device:
    """The device of Lightning's accelerator "auto" (a GPU where there is one), "cpu", "gpu" or "mps".

    `tf32` is for CUDA alone; see `allow_tf32`. Raises UserError where there is no such device.
    """
    has_gpu = torch.cuda.is_available()
    if accelerator == "auto":
        accelerator = "gpu" if has_gpu else "cpu"
    if not {"gpu": has_gpu, "mps": torch.backends.mps.is_available(), "cpu": True}[accelerator]:
        raise UserError(f"trainer.accelerator: '{accelerator}' is not there. Use cpu or auto.")
    if accelerator == "gpu":
        allow_tf32(tf32)
    return torch.device("cuda" if accelerator == "gpu" else accelerator)


def limit_memory(gib: float | None) -> None:
    """Give every network pass outside of training that budget, in this process; None: that of `MEMORY_GIB`.

    What a pass holds beside the weights: as many samples share one as fit, always at least one. Results depend on it through
    float rounding alone.
    """
    global _limit_gib
    _limit_gib = gib


def memory_budget(device: torch.device) -> int:
    """Bytes."""
    gib = MEMORY_GIB.get(device.type, MEMORY_GIB["cpu"]) if _limit_gib is None else _limit_gib
    return int(gib * 2**30)


def rows_within(bytes_per_row: float, device: torch.device) -> int:
    """How many rows fit the budget, at least one."""
    return max(1, int(memory_budget(device) // max(1, bytes_per_row)))


def passes(num_rows: int, most: int) -> list[slice]:
    """The rows of each pass, in order, of about equal numbers and at most `most`; one pass of none where there are none."""
    count = max(1, -(-num_rows // most))
    return [slice(num_rows * place // count, num_rows * (place + 1) // count) for place in range(count)]


def in_passes(function: Callable[[Tensor], Tensor], value: Tensor, most: int) -> Tensor:
    """`function` of all rows, at most `most` at a time."""
    if len(value) <= most:
        return function(value)
    return torch.cat([function(value[rows]) for rows in passes(len(value), most)])


def of_rows(function: Callable[[Tensor], Tensor], value: Tensor) -> Tensor:
    """`function` of all rows, as many at a time as fit the budget with four copies of them in float64."""
    return in_passes(function, value, rows_within(8 * 4 * value.shape[1:].numel(), value.device))


def ahead(fetch: Callable[[Batch], Fetched], batches: Iterable[Batch]) -> Iterator[Fetched]:
    """`fetch` of each batch, in order; a thread fetches the next one while the caller works on this one.

    Whoever walks over images by batches goes through here. Two results are in memory at a time. What `fetch` raises comes where
    its result would have; whoever leaves early (an error, Ctrl-C) waits for one batch at most.
    """
    thread = ThreadPoolExecutor(1)
    coming: Future[Fetched] | None = None
    try:
        for batch in batches:
            this, coming = coming, thread.submit(fetch, batch)
            if this is not None:
                yield this.result()
                give_back()
        if coming is not None:
            yield coming.result()
    finally:
        thread.shutdown(cancel_futures=True)


def give_back() -> None:
    """Give freed memory back to the system, at most once a second: between large blocks glibc keeps ever more of it in pieces.

    Called by whatever walks over many samples, after a batch. Other allocators are left alone.
    """
    global _given_back
    if (now := monotonic()) - _given_back >= 1:
        if (trim := _malloc_trim()) is not None:
            trim(0)
        _given_back = now


@cache
def _malloc_trim() -> Any:
    """glibc's; None where there is another allocator."""
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None


def lower_memory(device: torch.device) -> str:
    """The advice for passes that are of this budget, in words."""
    return f"lower audit.memory_gib (now {memory_budget(device) / 2**30:g}; device.limit_memory in Python)"


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or one that caused it, is a device's or the machine's refusal of memory."""
    while error is not None:
        if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
            return True
        if isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def explain_out_of_memory(advice: Callable[[], str]) -> Iterator[None]:
    """Turn an out-of-memory error inside into a UserError of one line.

    Args:
        advice: Called then: where it happened and what to lower, after "out of memory ".

    Raises:
        OutOfMemory: From the out-of-memory error; every other error passes.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(f"out of memory {advice()}") from error
