"""What network passes hold beside the weights, and whole audits: peak memory against the budget. Linux, CPU, random weights.

Each row runs in a process of its own: `python -m benchmarks.memory` prints the tables of docs/reference/memory.md (half an hour
on one thread, 12 GiB free); `python -m benchmarks.memory small` leaves out what takes more than a minute; other words
name rows.
"""

import ctypes
import gc
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.large_networks import WIDTHS, codec_of, denoiser_of
from benchmarks.resident import resident


class Peak(NamedTuple):
    """Bytes above what was there before, and seconds."""

    held: int
    seconds: float


def peak_of(call: Callable[[], object]) -> Peak:
    """Of a call."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before, start = resident("VmRSS"), time.monotonic()
    call()
    return Peak(resident("VmHWM") - before, time.monotonic() - start)


def codec_pass(kind: str, what: str, side: int, rows: int) -> str:
    """A row of the first table: encode, decode, J^T u or J v of so many images."""
    from ldm_privacy.device import limit_memory
    from ldm_privacy.geometry.jacobian import HELD, DecoderJacobian

    limit_memory(1e3)
    codec, image = codec_of(kind), torch.rand(rows, 3, side, side) * 2 - 1
    latent, kept = torch.randn(rows, *codec.latent_shape(3, side)), [0.0]

    def products(way: str) -> None:
        jacobian = DecoderJacobian(codec.decode, latent)
        kept.append(jacobian.kept_bytes)
        like = image if way == "transpose_times" else latent
        getattr(jacobian, way)(torch.randn(1, *like.shape))

    calls: dict[str, Callable[[], object]] = {
        "encode": lambda: codec.encode(image),
        "decode": lambda: codec.decode(latent),
        "J^T u": lambda: products("transpose_times"),
        "J v": lambda: products("times"),
    }
    with torch.set_grad_enabled(what.startswith("J")):
        held, seconds = peak_of(calls[what])
    taken = HELD * kept[-1] if what.startswith("J") else codec.bytes_per_number * image[0].numel()
    words = f"AutoencoderKL {', '.join(map(str, WIDTHS[kind]))}"
    return f"| {words} | {what} | {rows} x {side} px | {_mib(held / rows)} | {_mib(taken)} | {seconds:.0f} |"


def denoiser_pass(kind: str, what: str, side: int, rows: int) -> str:
    """A row of the second table: a pass of so many rows, without or with gradients."""
    from ldm_privacy.attacks.query import ROWS_PER_GRADIENT
    from ldm_privacy.models.predictor import bytes_per_number, num_parameters, output_of

    network, channels, shapes = denoiser_of(kind, side)
    network = network.eval().requires_grad_(False)
    latent, timestep = torch.randn(rows, channels, side, side), torch.full((rows,), 100)
    told: dict[str, Any] = {name: torch.randn(rows, *shape) for name, shape in shapes.items()}
    if kind == "dit":
        told = {"class_labels": torch.zeros(rows, dtype=torch.int64)}

    def call() -> None:
        if what == "pass":
            output_of(network, latent, timestep, told)
            return
        leaf = latent.clone().requires_grad_()
        torch.autograd.grad(output_of(network, leaf, timestep, told).square().sum(), leaf)

    with torch.set_grad_enabled(what != "pass"):
        held, seconds = peak_of(call)
    taken = bytes_per_number(network) * latent[0].numel() * (1 if what == "pass" else ROWS_PER_GRADIENT)
    words = f"{kind}, {num_parameters(network) / 1e6:.0f} M"
    return f"| {words} | {what} | {rows} x {channels}x{side}x{side} | {_mib(held / rows)} | {_mib(taken)} | {seconds:.0f} |"


def audit(kind: str, what: str, side: int, num_samples: int) -> str:
    """A row of the third table: encode, decode, influence with two probes, SimA and Loss at one timestep with a sweep."""
    from ldm_privacy.attacks.base import get_attack
    from ldm_privacy.audit.audit import Audit
    from ldm_privacy.audit.measure import Measuring
    from ldm_privacy.device import memory_budget
    from ldm_privacy.geometry.masks import KeepAll
    from ldm_privacy.geometry.probe import ProbeInfluence
    from ldm_privacy.models.ideal import scaled_linear_alphas_cumprod
    from ldm_privacy.models.predictor import NetworkPredictor
    from ldm_privacy.types import no_progress

    codec = codec_of(kind)
    latent_side = side // codec.factor
    network, _, shapes = denoiser_of(what, latent_side)
    predictor = NetworkPredictor(network.eval().requires_grad_(False), scaled_linear_alphas_cumprod())
    pixels = torch.randint(256, (num_samples, 3, side, side), dtype=torch.uint8)
    condition = {name: torch.randn(num_samples, *shape) for name, shape in shapes.items()}
    measuring = Measuring(codec, lambda index: pixels[index] / 127.5 - 1, "", None, codec.device, no_progress)
    index, parts = torch.arange(num_samples), {}

    def whole() -> None:
        start = time.monotonic()
        means = measuring.means(index)
        parts["encoding"] = time.monotonic() - start
        samples = measuring.samples(index, means, index % 2 == 0, condition=condition, influence=ProbeInfluence(2))
        parts["measuring"] = time.monotonic() - start
        attacks = {name: get_attack(name) for name in ("sima", "loss")}
        Audit(samples, attacks, {"all": KeepAll()}, [100], keep_fractions=[0.5, 1.0]).collect(predictor)

    held, seconds = peak_of(whole)
    shape = "x".join(map(str, codec.latent_shape(3, side)))
    names = f"{num_samples} images of {side} px, AutoencoderKL {', '.join(map(str, WIDTHS[kind]))}, {what} on {shape}"
    encoding, measured = parts["encoding"], parts["measuring"]
    split = f"{encoding:.0f} + {measured - encoding:.0f} + {seconds - measured:.0f}"
    return f"| {names} | {_mib(held)} | {_mib(memory_budget(codec.device))} | {split} |"


def _mib(value: float) -> str:
    return f"{value / 2**20:,.1f}" if value < 10 * 2**20 else f"{value / 2**20:,.0f}"


PASS = "| network | what | rows | MiB a row | taken to be | s |\n|---|---|---|---|---|---|"
TABLES: dict[str, tuple[Callable[..., str], str, list[tuple[str, str, int, int]]]] = {
    "codec": (
        codec_pass,
        PASS,
        [
            *(("tiny", what, 32, 64) for what in ("encode", "decode", "J^T u", "J v")),
            *(("cifar", what, 32, 32) for what in ("encode", "decode", "J^T u", "J v")),
            *(("sd", what, 128, 4) for what in ("encode", "decode", "J^T u", "J v")),
            *(("sd", what, 256, 2) for what in ("encode", "decode", "J^T u")),
            *(("sd", what, 512, 1) for what in ("encode", "decode", "J^T u")),
        ],
    ),
    "denoiser": (
        denoiser_pass,
        PASS,
        [
            *(("unet-narrow", what, 8, 256) for what in ("pass", "gradient")),
            *(("unet", what, 8, 64) for what in ("pass", "gradient")),
            *(("ddpm", what, 32, 8) for what in ("pass", "gradient")),
            *(("dit", what, 32, 4) for what in ("pass", "gradient")),
            *(("sdxl-narrow", what, 64, 4) for what in ("pass", "gradient")),
            ("sd1", "pass", 64, 1),
            ("sd1", "pass", 64, 2),
            ("sd1", "gradient", 64, 1),
        ],
    ),
    "audit": (
        audit,
        "| audit | MiB | budget | s: encoding + measuring + attacks |\n|---|---|---|---|",
        [("tiny", "sdxl-narrow", 128, 8), ("sd", "unet-narrow", 512, 2)],
    ),
}
LONG = {"sd1", "sd"}


def main(words: list[str]) -> None:
    """Print the tables; with the one row `words` names, in this process."""
    if len(words) == 5:
        torch.set_num_threads(1)
        torch.manual_seed(0)
        table, kind, what, side, rows = words
        print(TABLES[table][0](kind, what, int(side), int(rows)))
        return
    for table, (_, head, rows_of_table) in TABLES.items():
        print(f"\n{head}", flush=True)
        for row in rows_of_table:
            names = {table, *map(str, row)}
            if ("small" in words and names & LONG) or ({*words} - {"small"} and not names >= {*words} - {"small"}):
                continue
            command = [sys.executable, "-W", "ignore", "-m", "benchmarks.memory", table, *map(str, row)]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main(sys.argv[1:])
