"""What a machine is, through torch, and what it reaches: the facts without which no time means anything.

python -m benchmarks.gpu_day.machine --json FILE
"""

import argparse
import os
import platform
import shutil
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.json_file import write_json

NEEDED = {
    "lightning": "lightning",
    "diffusers": "diffusers",
    "torchmetrics": "torchmetrics",
    "wandb": "wandb",
    "datasets": "datasets",
    "omegaconf": "omegaconf",
    "pydantic": "pydantic",
    "safetensors": "safetensors",
    "huggingface_hub": "huggingface_hub",
    "sklearn": "scikit-learn",
    "scipy": "scipy",
    "numpy": "numpy",
    "PIL": "pillow",
    "pyarrow": "pyarrow",
    "pandas": "pandas",
    "matplotlib": "matplotlib",
    "plotly": "plotly",
    "rich": "rich",
    "filelock": "filelock",
    "jinja2": "jinja2",
    "markupsafe": "markupsafe",
}
"""Module -> distribution, as pyproject.toml has them, beside torch."""
SOME_ENTRIES = {"transformers": "transformers", "tokenizers": "tokenizers", "peft": "peft", "opacus": "opacus"}
"""What some entry files need: captions, fine-tuning, DP-SGD."""


def missing(modules: dict[str, str]) -> list[str]:
    """Distributions that aren't installed; nothing is imported."""
    return [name for module, name in modules.items() if find_spec(module) is None]


def refusal(*, is_toy: bool) -> str:
    """In one line what this machine lacks for the day; "" where it lacks nothing."""
    if find_spec("torch") is None:
        return "torch is missing: install the wheel with CUDA for this machine's driver, then the others (docs/howto/gpu.md)."
    if absent := missing(NEEDED):
        return f"missing: {' '.join(absent)}; pip install --no-index --no-deps wheels/*.whl (docs/howto/gpu.md)."
    if is_toy:
        return ""
    import torch

    if not torch.cuda.is_available():
        return f"torch {torch.__version__} sees no CUDA device here; --toy tries the whole list on a CPU."
    return ""


def facts() -> dict[str, Any]:
    """Names, versions, sizes."""
    import torch

    found: dict[str, Any] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "packages": {name: _version(name) for name in ("lightning", "diffusers", "transformers", "triton")},
        "missing": [*missing(NEEDED), *missing(SOME_ENTRIES)],
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "disk_free_gib": round(shutil.disk_usage(".").free / 2**30, 1),
        "c_compiler": next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None),
        "device": "CPU",
    }
    if torch.cuda.is_available():
        of_device = torch.cuda.get_device_properties(0)
        free, total = torch.cuda.mem_get_info()
        found |= {
            "device": of_device.name,
            "devices": torch.cuda.device_count(),
            "capability": f"{of_device.major}.{of_device.minor}",
            "multiprocessors": of_device.multi_processor_count,
            "device_memory_gib": round(total / 2**30, 1),
            "device_memory_free_gib": round(free / 2**30, 1),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "bfloat16": torch.cuda.is_bf16_supported(),
        }
    return found


def reached() -> dict[str, Any]:
    """Rates of one large matrix product in each precision, and of a copy; whether a function compiles, and in what time."""
    import torch

    from benchmarks.train import matmul_rate
    from ldm_privacy.device import allow_tf32

    on_gpu = torch.cuda.is_available()
    device, rates = torch.device("cuda" if on_gpu else "cpu"), {}
    for name, dtype in (("float32", torch.float32), ("tf32", torch.float32), ("bfloat16", torch.bfloat16)):
        if on_gpu or name == "float32":
            allow_tf32(name == "tf32")
            rates[name] = round(matmul_rate(dtype, device) / 1e12, 2)
    found: dict[str, Any] = {"tflops": rates}
    if on_gpu:
        source = torch.empty(2**30, dtype=torch.uint8, device=device)
        target = torch.empty_like(source)
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(10):
            target.copy_(source)
        torch.cuda.synchronize()
        found["copy_gb_per_second"] = round(10 * 2 * 2**30 / 1e9 / (time.perf_counter() - began))
        began = time.perf_counter()
        try:
            torch.compile(lambda value: (value.sin() + 1).cos())(torch.ones(1024, device=device))
            found["compiles"] = f"yes, a first function in {time.perf_counter() - began:.0f} s"
        except Exception as error:
            found["compiles"] = f"no: {' '.join(str(error).split())[:200]}"
    return found


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args(arguments)
    found = facts()
    write_json(options.json, found)
    found |= reached()
    write_json(options.json, found)
    print(", ".join(f"{name} {value}" for name, value in found.items() if not isinstance(value, dict)))
    rates = ", ".join(f"{name} {rate:g}" for name, rate in found["tflops"].items())
    print(f"{found['device']}, torch {found['torch']}; matrix products in TFLOP/s: {rates}")


if __name__ == "__main__":
    main(sys.argv[1:])
