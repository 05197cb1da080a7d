"""Where the time of a training step goes: a profile's operations or kernels, put into groups by their names."""

import torch
from torch.profiler import profile

OPTIMIZER, NORMALISATION = "optimizer, clipping, averages", "normalisation"
CONVOLUTIONS, COPIES = "convolutions and matrix products", "indexing, random numbers, copies"
REST = "elementwise and the rest"
RULES = (
    (CONVOLUTIONS, ("xmma", "gemm", "cutlass")),  # some of them are "indexed"
    (OPTIMIZER, ("adam", "foreach", "optimizer", "multi_tensor", "lerp", "lpnorm")),
    (COPIES, ("index", "rand", "normal_", "distribution", "memcpy", "memset", "gather", "bernoulli", "aten::copy_")),
    (NORMALISATION, ("norm", "welford", "rowwisemoments")),
    (CONVOLUTIONS, ("conv", "mm", "cudnn", "linear", "sm80", "sm90")),
    (COPIES, ("copy",)),
)
"""The first rule with a sign that is in a kernel's name gives its group."""


def group_of(name: str) -> str:
    """The group of an operation or kernel, by its name in lower case."""
    if name.startswith(("triton_", "cpp_fused")):  # fused from several operations; what is not a norm is elementwise
        return NORMALISATION if "norm" in name else REST
    return next((group for group, signs in RULES if any(sign in name for sign in signs)), REST)


def shares(profiler: profile, seconds: float, device: torch.device) -> dict[str, float]:
    """Share of the wall time by group of operations, the idle device (or the host's own time on CPU) last."""
    spent = dict.fromkeys([CONVOLUTIONS, NORMALISATION, OPTIMIZER, COPIES, REST], 0.0)
    for event in profiler.key_averages():
        on_device = device.type == "cuda"
        # An annotation spans the kernels inside it, which are counted themselves.
        if on_device and (event.device_type != torch.autograd.DeviceType.CUDA or event.is_user_annotation):
            continue
        name = event.key.lower()
        if not on_device and not name.startswith(("aten::", "optimizer", "triton", "cpp_fused", "torch-compiled")):
            continue
        spent[group_of(name)] += (event.self_device_time_total if on_device else event.self_cpu_time_total) / 1e6
    found = {group: value / seconds for group, value in spent.items()}
    found["device idle" if device.type == "cuda" else "host: Python, Lightning, autograd"] = max(0.0, 1 - sum(found.values()))
    return found
