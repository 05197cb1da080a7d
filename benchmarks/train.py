"""Samples per second of the denoiser's training beside the loops that people run, and where the time goes.

    python -m benchmarks.train [--network paper|small] [--batch-size 128] [--precision 32-true|bf16-mixed]
                               [--compile none|default|reduce-overhead] [--channels-last] [--ema] [--steps 20] [--rounds 5]

Ours: `DenoiserModule` on cached latents, through Lightning's Trainer with the callbacks of `train.py` that act in a step.
Published: the loop of 2511.20592's code, and of diffusers' examples: a torch DataLoader over the images, the frozen
autoencoder's encoder at every batch, AdamW, gradient clip, float32 as PyTorch leaves it (on a GPU its convolutions use
TensorFloat-32), eager. Its images are a tensor in memory here; nothing is decoded. Cached: that loop over latents that were
encoded once, both mirror images, in our batch size and precision, as who knows that the encoder is frozen writes it.
Images and weights are random: the time of a step doesn't depend on them. All are timed in turn, without their first steps;
times are medians over the rounds, ratios medians of each round's ratio.

The share of the device is model FLOPs (three times a forward pass, counted by torch) per second over the rate of one large
matrix product in the precision of the steps. `paper`: both networks of configs/cifar10.yaml; `small`: the same shapes, narrow.
"""

import argparse
import logging
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers import DDPMScheduler
from lightning.pytorch import Callback, Trainer
from rich import box
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.flops import flops
from benchmarks.in_turn import Timing, clock, speedup, times_faster, turns
from benchmarks.json_file import write_json
from benchmarks.plain_loop import WARM_UP, loop
from benchmarks.step_profile import shares
from ldm_privacy.callbacks import AveragedWeights, StopOnNonFiniteLoss
from ldm_privacy.device import allow_tf32
from ldm_privacy.models.kl import KLCodec
from ldm_privacy.models.predictor import num_parameters
from ldm_privacy.models.unet import unet
from ldm_privacy.recipes.terminal import quiet_libraries
from ldm_privacy.training.denoiser import DenoiserModule


class Widths(NamedTuple):
    """Channels per resolution of both networks, residual blocks of the denoiser, groups of the normalisation."""

    autoencoder: tuple[int, ...]
    denoiser: tuple[int, ...]
    layers: int
    groups: int


WIDTHS = {
    "paper": Widths((128, 128, 256), (128, 256, 256, 256), 2, 32),
    "small": Widths((32, 32, 64), (32, 64, 64), 1, 16),
}
console = Console(width=140)


class Clock(Callback):
    """Seconds per step after the warm-up, and a profile of the steps where asked for."""

    def __init__(self, profiler: profile | None = None):
        self.profiler, self.seconds = profiler, 0.0
        # What a profile counts is wall time.
        self.clock = clock if profiler is None or torch.cuda.is_available() else time.perf_counter

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == WARM_UP:
            if self.profiler is not None:
                self.profiler.start()
            self.seconds = -self.clock()

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        self.seconds = (self.seconds + self.clock()) / (trainer.global_step - WARM_UP)
        if self.profiler is not None:
            self.profiler.stop()


def build(options: argparse.Namespace) -> tuple[KLCodec, nn.Module]:
    """Codec and denoiser with random weights."""
    torch.manual_seed(0)
    widths = WIDTHS[options.network]
    codec = KLCodec.build(
        image_channels=3,
        resolution=32,
        block_out_channels=widths.autoencoder,
        layers_per_block=1,
        norm_num_groups=widths.groups,
    )
    network = unet(
        latent_channels=4,
        latent_size=8,
        block_out_channels=widths.denoiser,
        layers_per_block=widths.layers,
        dropout=0.1,
        norm_num_groups=widths.groups,
    )
    return codec, network


def ours(module: DenoiserModule, options: argparse.Namespace, device: torch.device, profiler: profile | None = None) -> float:
    """Seconds per step of our stage."""
    if device.type == "cuda":
        allow_tf32(True)
    timer = Clock(profiler)
    callbacks: list[Callback] = [StopOnNonFiniteLoss(Path("last.ckpt"), "denoiser.learning_rate")]
    if options.ema:
        callbacks.append(AveragedWeights(0.999))
    with tempfile.TemporaryDirectory() as folder:
        Trainer(
            max_steps=WARM_UP + options.steps,
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=1,
            precision=options.precision,
            gradient_clip_val=1.0,
            callbacks=[*callbacks, timer],
            logger=False,
            limit_val_batches=0,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        ).fit(module)
    module.to(device)
    return timer.seconds


def matmul_rate(dtype: torch.dtype, device: torch.device) -> float:
    """FLOPs per second of one large matrix product, the best of ten."""
    size = 8192 if device.type == "cuda" else 1024
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))

    def once() -> float:
        start = clock()
        left @ right
        return clock() - start

    once()
    return 2 * size**3 / min(once() for _ in range(10))


def main() -> None:
    """Times all in turn and prints two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    on_gpu = torch.cuda.is_available()
    parser.add_argument("--network", choices=WIDTHS, default="paper" if on_gpu else "small")
    parser.add_argument("--batch-size", type=int, default=1024 if on_gpu else 64)
    parser.add_argument("--published-batch-size", type=int, default=128 if on_gpu else 64, help="of the published loop")
    parser.add_argument("--precision", choices=("32-true", "bf16-mixed"), default="bf16-mixed" if on_gpu else "32-true")
    parser.add_argument("--compile", choices=("none", "default", "reduce-overhead"), default="default" if on_gpu else "none")
    parser.add_argument("--channels-last", action=argparse.BooleanOptionalAction, default=on_gpu)
    parser.add_argument("--ema", action="store_true", help="with averaged weights, which the other loops haven't")
    parser.add_argument("--steps", type=int, default=200 if on_gpu else 20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=4 if on_gpu else 0, help="of the other loops' DataLoader")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    options = parser.parse_args()
    quiet_libraries()
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.ERROR)

    device = torch.device("cuda" if on_gpu else "cpu")
    codec, network = build(options)
    codec.to(device)
    num_samples = options.batch_size * (WARM_UP + options.steps)  # whole batches only, as the other loops have them
    latents = torch.randn(2, num_samples, 4, 8, 8)
    module = DenoiserModule(
        network,
        DDPMScheduler().alphas_cumprod,
        latents,
        batch_size=options.batch_size,
        compile_mode=options.compile,
        channels_last=options.channels_last,
    )
    _, plain_network = build(options)
    published = argparse.Namespace(**{**vars(options), "batch_size": options.published_batch_size})
    images = torch.randint(0, 256, (published.batch_size * (WARM_UP + options.steps), 3, 32, 32), dtype=torch.uint8)
    steps = {
        "ours": lambda: ours(module, options, device),
        "published": lambda: loop(plain_network, codec, images, published, device),
        "cached": lambda: loop(plain_network, None, latents.transpose(0, 1), options, device),
    }
    latent, timestep = torch.randn(1, 4, 8, 8, device=device), torch.zeros(1, dtype=torch.int64, device=device)
    plain_network.to(device)
    forward = flops(plain_network, latent, timestep)
    work = {"ours": 3 * forward, "published": 3 * forward, "cached": 3 * forward}
    work["published"] += flops(codec.mean, torch.randn(1, 3, 32, 32, device=device))
    dtype = torch.bfloat16 if options.precision == "bf16-mixed" else torch.float32
    peak = matmul_rate(dtype, device)
    seconds: dict[str, list[float]] = {name: [] for name in steps}  # per sample
    for name in turns(list(steps), range(options.rounds)):
        batch_size = published.batch_size if name == "published" else options.batch_size
        began = time.perf_counter()
        seconds[name].append(steps[name]() / batch_size)
        taken = time.perf_counter() - began
        console.print(
            f"Round {len(seconds[name])}, {name}: {1 / seconds[name][-1]:,.1f} samples a second; {taken:.0f} s in all."
        )
        timings = {name: Timing(None, each) for name, each in seconds.items()}
        if len({len(each) for each in seconds.values()}) == 1:  # whoever is stopped keeps the rounds that are whole
            rates = {name: 1 / timing.median for name, timing in timings.items()}
            numbers: dict[str, Any] = {
                "network": options.network,
                "parameters": num_parameters(network),
                "settings": f"{options.precision}, compile {options.compile}, batch {options.batch_size:,}",
                "rounds": len(seconds[name]),
                "samples_per_second": rates,
                "faster": {slow: speedup(timings["ours"], timings[slow]) for slow in ("published", "cached")},
                "mflop_per_sample": {name: each / 1e6 for name, each in work.items()},
                "tflops_of_a_product": peak / 1e12,
                "share": {name: 3 * forward * rate / peak for name, rate in rates.items()},
            }
            write_json(options.json, numbers)

    name = torch.cuda.get_device_name() if on_gpu else f"CPU, {torch.get_num_threads()} thread(s)"
    table = Table(
        "what", *timings, box=box.MARKDOWN, title=f"{options.network} network, {num_parameters(network) / 1e6:.1f} M, {name}"
    )
    table.add_row("batch size", *(str(each) for each in (options.batch_size, published.batch_size, options.batch_size)))
    table.add_row("samples per second", *(f"{rate:,.1f}" for rate in rates.values()))
    table.add_row(
        f"least and most of {options.rounds} rounds",
        *(f"{1 / max(each):,.1f} to {1 / min(each):,.1f}" for each in seconds.values()),
    )
    table.add_row("ours is faster by", "", *(times_faster(timings["ours"], timings[slow]) for slow in ("published", "cached")))
    table.add_row("MFLOP per sample", *(f"{each / 1e6:,.0f}" for each in work.values()))
    table.add_row("model GFLOP per second", *(f"{3 * forward * rate / 1e9:,.1f}" for rate in rates.values()))
    table.add_row(
        f"share of one product's {peak / 1e9:,.0f} GFLOP/s in {str(dtype).removeprefix('torch.')}",
        *(f"{share:.1%}" for share in numbers["share"].values()),
    )
    console.print(table)

    activities = [ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]  # tracing the host too would slow it
    options.steps = min(options.steps, 20)
    profiler = profile(activities=activities)
    total = ours(module, options, device, profiler) * options.steps
    where = Table("where a step's time goes", "share", title=f"Profile of {options.steps} steps of ours")
    found = shares(profiler, total, device)
    for group, share in found.items():
        where.add_row(group, f"{share:.1%}")
    console.print(where)
    write_json(options.json, numbers | {"profile": found})


if __name__ == "__main__":
    main()
