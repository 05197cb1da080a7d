"""Mask quality against time of the influence estimators, and the cost of local distortion, on the CPU (or `--device cuda`).

    python -m benchmarks.geometry --images 'cifar10/train-*.parquet' [--autoencoder FOLDER] [--num-samples 96] [--rounds 5]

Part 1: a CIFAR-10-sized decoder (4x8x8 -> 3x32x32). Overlap of the kept 60 % with the exact mask, and time, of the published
code (one decode and all products from its graph, sample by sample), of the same in batches, and of our estimators. The
autoencoder is `--autoencoder` (a diffusers folder) or one that is trained first for `--train-steps`: a small one, or with
`--network paper` one of the published width. Without `--images` its weights and the latents are random: the times mean
something, the overlaps don't.

Part 2: `Distortion`, the published code and whole Jacobians on that decoder; and on one of Stable Diffusion's shape
(4x32x32 -> 3x256x256, D = 4096, attention) with few channels and random weights.

All variants are timed in turn, `--rounds` times; times are medians over the rounds, ratios medians of each round's ratio.
"""

import argparse
import glob
import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from diffusers import AutoencoderKL
from PIL import Image
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from benchmarks.distortion import Decode, distortion_table
from benchmarks.in_turn import Timing, in_turn, speedup, times_faster
from benchmarks.json_file import write_json
from ldm_privacy.geometry.estimate import mask_overlap
from ldm_privacy.geometry.exact import ExactInfluence
from ldm_privacy.geometry.masks import KeepTopInfluence
from ldm_privacy.geometry.probe import ProbeInfluence
from ldm_privacy.geometry.shrunk import ShrunkInfluence, shrink_log_influence
from ldm_privacy.geometry.stream import SAMPLES_AT_ONCE, stream_influence
from ldm_privacy.models.pretrained import PretrainedCodec

console = Console(width=140)
BATCH_SIZE = 16
NUM_PROBES = 16
"""Of the published code."""

WIDTHS = {"small": (32, 48, 64), "paper": (128, 128, 256)}
"""Channels of the blocks: 0.8 M parameters; as published."""


def untrained_autoencoder(widths: tuple[int, ...], **options: Any) -> AutoencoderKL:
    """A block of each width, 4 latent channels."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        block_out_channels=widths,
        layers_per_block=1,
        latent_channels=4,
        **options,
    )


def read_images(pattern: str, count: int) -> Tensor:
    """The first `count` images of the parquet files, uint8 (count, 3, 32, 32)."""
    images: list[np.ndarray] = []
    for path in sorted(glob.glob(pattern)):
        table = pq.read_table(path)
        column = "img" if "img" in table.column_names else "image"
        for row in table[column].slice(0, count - len(images)).to_pylist():
            images.append(np.asarray(Image.open(io.BytesIO(row["bytes"])).convert("RGB")))
    if len(images) < count:
        raise SystemExit(f"--images: {len(images)} images in '{pattern}', {count} are needed.")
    return torch.tensor(np.stack(images)).permute(0, 3, 1, 2)


def train(autoencoder: AutoencoderKL, images: Tensor, num_steps: int) -> None:
    """L1 + 0.01 KL, AdamW, learning rate falling to a twentieth."""
    optimizer = torch.optim.AdamW(autoencoder.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(0)
    loss = torch.zeros(())
    for step in track(range(num_steps), "autoencoder"):
        optimizer.param_groups[0]["lr"] = 1e-3 * max(0.05, 1 - step / num_steps)
        batch = images[torch.randint(len(images), (32,), generator=generator)].float() / 127.5 - 1
        batch = batch.to(autoencoder.device)
        posterior = autoencoder.encode(batch).latent_dist
        loss = (autoencoder.decode(posterior.sample()).sample - batch).abs().mean()
        kl = 0.5 * (posterior.mean**2 + posterior.var - 1 - posterior.logvar).mean()
        optimizer.zero_grad()
        (loss + 1e-2 * kl).backward()
        torch.nn.utils.clip_grad_norm_(autoencoder.parameters(), 1.0)
        optimizer.step()
    console.print(f"Autoencoder trained for {num_steps} steps of 32 images; last L1 {loss.item():.3f}.")


def published_influence(decode: Decode, latent: Tensor, num_probes: int) -> Tensor:
    """As the code of 2511.20592: sample by sample, one decode and all J^T v from its graph."""
    return torch.cat([batched_influence(decode, sample, num_probes, 1) for sample in latent.split(1)])


def batched_influence(decode: Decode, latent: Tensor, num_probes: int, batch_size: int) -> Tensor:
    """One decode a batch, and a J^T v a probe over all of its samples."""
    influence = torch.zeros_like(latent)
    for start in range(0, len(latent), batch_size):
        leaf = latent[start : start + batch_size].clone().requires_grad_()
        image = decode(leaf)
        for _ in range(num_probes):
            (product,) = torch.autograd.grad(image, leaf, torch.randn_like(image), retain_graph=True)
            influence[start : start + batch_size] += product.square() / num_probes
    return influence


def trained(options: argparse.Namespace, images: Tensor | None) -> AutoencoderKL:
    """The autoencoder of part 1."""
    if options.autoencoder:
        data = {"image_channels": 3, "resolution": 32}
        autoencoder = PretrainedCodec.build(path=options.autoencoder, **data).network.to(options.device)
    else:
        without_attention = {"norm_num_groups": 16, "mid_block_add_attention": False}
        autoencoder = untrained_autoencoder(WIDTHS[options.network], **without_attention).to(options.device)
        if images is None:
            console.print("No --images: random weights and latents. Times only; pass CIFAR-10's parquet files for overlaps.")
        else:
            train(autoencoder, images, options.train_steps)
    return autoencoder.eval().requires_grad_(False)


def masks(decode: Decode, latent: Tensor, options: argparse.Namespace) -> None:
    """Part 1."""
    count, index = len(latent), torch.arange(len(latent))

    def ours(estimator: ProbeInfluence | ShrunkInfluence | ExactInfluence) -> Tensor:
        batch_size = BATCH_SIZE if options.device == "cpu" else SAMPLES_AT_ONCE
        return stream_influence(estimator, decode, latent, index, batch_size=batch_size).influence

    exact = in_turn({"exact": partial(ours, ExactInfluence())}, [0])["exact"]
    log = 0.5 * exact.result.flatten(1).double().log()
    centred = log - log.mean(1, keepdim=True)
    console.print(
        f"c = ln(G)/2: standard deviation between dimensions {centred.mean(0).std():.2f}, within a dimension over samples "
        f"{(centred - centred.mean(0)).std():.2f}."
    )
    variants: dict[str, Callable[[], Tensor]] = {
        "published": partial(published_influence, decode, latent, NUM_PROBES),
        "batched": partial(batched_influence, decode, latent, NUM_PROBES, BATCH_SIZE),
    }
    for probes in options.probes:
        variants[f"probe {probes}"] = partial(ours, ProbeInfluence(probes))
        variants[f"shrunk {probes}"] = partial(ours, ShrunkInfluence(probes))
    timings = in_turn(variants, track(range(options.rounds), "influence"))

    rule = KeepTopInfluence(0.6)
    measured: dict[str, Any] = {"network": options.network, "samples": count, "overlap": {}, "ms": {}, "faster": {}}
    table = Table("method", "probes", "overlap", "ms a sample", box=box.MARKDOWN, title=f"{count} samples, keep 60 %")

    def add(name: str, probes: object, influence: Tensor, timing: Timing | None) -> None:
        overlap = mask_overlap(rule(exact.result, index), rule(influence, index)).double()
        interval = f"{overlap.mean():.4f} ± {1.96 * overlap.std() / count**0.5:.4f}"
        measured["overlap"][f"{name}, {probes}"] = float(overlap.mean())
        if timing:
            measured["ms"][f"{name}, {probes}"] = 1000 * timing.median / count
        table.add_row(name, str(probes), interval, f"{1000 * timing.median / count:.1f}" if timing else "as shrunk")

    add("published code", NUM_PROBES, timings["published"].result, timings["published"])
    add("the same in batches", NUM_PROBES, timings["batched"].result, timings["batched"])
    add("ExactInfluence", "all", exact.result, exact)
    for name, title in (("probe", "ProbeInfluence"), ("shrunk", "ShrunkInfluence")):
        for probes in options.probes:
            add(title, probes, timings[f"{name} {probes}"].result, timings[f"{name} {probes}"])
    for probes in options.probes:
        add("data-set-wide", probes, shrink_log_influence(timings[f"probe {probes}"].result, probes, "none").influence, None)
    console.print(table)

    faster = Table(
        *("", "than the published code", "than the same in batches"),
        box=box.MARKDOWN,
        title=f"Times faster than {NUM_PROBES} probes (least and largest of {options.rounds} rounds)",
    )
    for name in variants:
        if name not in ("published", "batched"):
            slow_ones = [timings[slow] for slow in ("published", "batched")]
            faster.add_row(name, *(times_faster(timings[name], slow) for slow in slow_ones))
            measured["faster"][name] = [speedup(timings[name], slow) for slow in slow_ones]
    console.print(faster)
    write_json(options.json, measured)


def large_decoder(device: str) -> tuple[Decode, Tensor]:
    """Of Stable Diffusion's shape with few channels and random weights, and one latent."""
    torch.manual_seed(0)
    autoencoder = untrained_autoencoder((8, 16, 16, 16), norm_num_groups=8)
    autoencoder.to(device).eval().requires_grad_(False)
    latent = torch.randn(1, 4, 32, 32, generator=torch.Generator().manual_seed(1)).to(device)
    return lambda value: autoencoder.decode(value).sample, latent


def main() -> None:
    """Runs the parts and prints their tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", help="CIFAR-10 as parquet files, a glob")
    parser.add_argument("--autoencoder", help="diffusers folder of a trained autoencoder for 3x32x32 images")
    parser.add_argument("--network", choices=WIDTHS, default="small", help="of the autoencoder that is trained first")
    parser.add_argument("--train-steps", type=int, default=400)
    parser.add_argument("--num-samples", type=int, default=96)
    parser.add_argument("--num-distortion-samples", type=int, default=4)
    parser.add_argument("--probes", type=int, nargs="+", default=[1, 2, 3, 4, 8, 16])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--num-threads", type=int, default=1)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--part", choices=["masks", "distortion", "large", "all"], default="all")
    parser.add_argument("--json", type=Path, help="file for the numbers of the masks")
    options = parser.parse_args()
    torch.set_num_threads(options.num_threads)
    if options.part in ("large", "all"):
        console.print(distortion_table(*large_decoder(options.device), options.rounds, with_whole=False))
    if options.part == "large":
        return
    torch.manual_seed(0)
    images = read_images(options.images, 5000) if options.images else None
    autoencoder = trained(options, images)
    if images is None:
        latent = torch.randn(options.num_samples, 4, 8, 8).to(options.device)
    else:
        with torch.no_grad():
            chosen = images[: options.num_samples].float().to(options.device) / 127.5 - 1
            latent = autoencoder.encode(chosen).latent_dist.mean.contiguous()  # vmap wants it so

    def decode(value: Tensor) -> Tensor:
        return autoencoder.decode(value).sample

    if options.part in ("distortion", "all"):
        few = latent[: options.num_distortion_samples]
        console.print(distortion_table(decode, few, options.rounds, with_whole=True))
    if options.part in ("masks", "all"):
        masks(decode, latent, options)


if __name__ == "__main__":
    main()
