"""What a device does with float32, and its memory running out, told in one line that names what to lower."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from ldm_privacy.errors import UserError


class OutOfMemory(UserError):
    """Memory ran out; the message says where and what to lower."""


_SIGNS = ("can't allocate memory", "out of memory", "ALLOC_FAILED", "calculation overflowed")


def allow_tf32(allowed: bool) -> None:
    """Let CUDA round the factors of float32 products and convolutions to TensorFloat-32, or not; for the whole process."""
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed


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
