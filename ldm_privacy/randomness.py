"""Random numbers that belong to a sample, not to a batch: a counter-based generator in plain tensor arithmetic.

Every draw is a pure function of integers (seed, purpose, sample index, timestep, draw, dimension), so the same sample gets
the same noise in any batch, order, process or resumed run, and on CPU and GPU (to float32 rounding of the inverse normal).
The key parts are hashed into the state of a SplitMix64 generator (Steele, Lea, Flood, OOPSLA 2014), one stream per key.
"""

import math
import zlib
from collections.abc import Sequence

import torch
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit integer
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB


def _shift_right(value: Tensor, bits: int) -> Tensor:
    # int64 shifts keep the sign; masking makes it the unsigned shift that the hash is defined with.
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def _mix(value: Tensor) -> Tensor:
    value = (value ^ _shift_right(value, 30)) * _MIX_1
    value = (value ^ _shift_right(value, 27)) * _MIX_2
    return value ^ _shift_right(value, 31)


def _signed(value: int) -> int:
    """The 64-bit integer that `value` wraps around to."""
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)


def _mix_int(value: int) -> int:
    """`_mix` of a number, in Python: a number made into a tensor of a GPU would wait for that GPU."""
    value %= 1 << 64
    value = (value ^ (value >> 30)) * _MIX_1 % (1 << 64)
    value = (value ^ (value >> 27)) * _MIX_2 % (1 << 64)
    return _signed(value ^ (value >> 31))


def _key(parts: Sequence[int | Tensor], device: torch.device) -> int | Tensor:
    """The hash of all parts: a number as long as they are numbers."""
    key: int | Tensor = 0
    for part in parts:
        if isinstance(part, Tensor):
            addend = _signed(key + _GOLDEN) if isinstance(key, int) else key + _GOLDEN
            key = _mix(part.to(device, torch.int64) + addend)
        elif isinstance(key, int):
            key = _mix_int(key + _GOLDEN + part)
        else:
            key = _mix(key + _signed(part + _GOLDEN))
    return key


def uniform(purpose: str, parts: Sequence[int | Tensor], shape: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
    """Uniform numbers in (0, 1), float64, one row per key.

    Args:
        purpose: What the numbers are for ("probe", "noise", ...); different purposes are independent.
        parts: Integers or integer tensors that broadcast to the key shape, for example (seed, sample_index, timestep).
        shape: Shape of the numbers drawn for each key.
        device: Where they are computed.

    Returns:
        Tensor (*key shape, *shape). Deterministic: no generator state is read or changed.
    """
    device = torch.device(device)
    key = _key([zlib.crc32(purpose.encode()), *parts], device)
    if isinstance(key, int):
        key = torch.full((), key, dtype=torch.int64, device=device)
    count = torch.arange(math.prod(shape), dtype=torch.int64, device=device)
    bits = _shift_right(_mix(key[..., None] + (count + 1) * _GOLDEN), 11)
    return ((bits.double() + 0.5) * 2.0**-53).reshape((*key.shape, *shape))


def normal(purpose: str, parts: Sequence[int | Tensor], shape: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
    """Standard normal numbers, float32, one row per key: the inverse normal of `uniform` (same arguments)."""
    return torch.special.ndtri(uniform(purpose, parts, shape, device)).float()


def rademacher(purpose: str, parts: Sequence[int | Tensor], shape: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
    """Signs -1 or +1, float32, one row per key (arguments as in `uniform`)."""
    return torch.where(uniform(purpose, parts, shape, device) < 0.5, -1.0, 1.0)


def derive_seed(purpose: str, *parts: int) -> int:
    """A seed in [0, 2^63) for a library generator that wants one, from the run's seed and what it is used for."""
    return int(_key([zlib.crc32(purpose.encode()), *parts], torch.device("cpu"))) & (2**63 - 1)
