"""Mask quality against time of the influence estimators, and the cost of local distortion, on the CPU (or `--device cuda`).

    python benchmarks/geometry.py --images 'cifar10/train-*.parquet' [--autoencoder FOLDER] [--num-samples 96]

Part 1: a CIFAR-10-sized decoder (4x8x8 -> 3x32x32). Overlap of the kept 60 % with the exact mask, and time, of a plain
loop over samples and probes, of the same probes batched, of shrunk and of data-set-wide estimates. The autoencoder is
`--autoencoder` (a diffusers folder) or a small one that is trained first for `--train-minutes`. Without `--images` its
weights and the latents are random: the times mean something, the overlaps don't.

Part 2: a decoder of Stable Diffusion's shape (4x32x32 -> 3x256x256, D = 4096, attention) with few channels and random
weights: `Distortion` against building J column by column, of which `--columns` are timed and scaled to 4096.
"""

import argparse
import glob
import io
import time
from collections.abc import Callable
from unittest.mock import patch

import numpy as np
import pyarrow.parquet as pq
import torch
from diffusers import AutoencoderKL
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor

from ldm_privacy.geometry.distortion import Distortion
from ldm_privacy.geometry.estimate import mask_overlap
from ldm_privacy.geometry.exact import ExactInfluence
from ldm_privacy.geometry.jacobian import DecoderJacobian
from ldm_privacy.geometry.masks import KeepTopInfluence
from ldm_privacy.geometry.probe import ProbeInfluence
from ldm_privacy.geometry.shrunk import ShrunkInfluence
from ldm_privacy.geometry.stream import stream_influence

console = Console()
Decode = Callable[[Tensor], Tensor]


def small_autoencoder() -> AutoencoderKL:
    """f = 4, 4 latent channels, 0.8 M parameters, no attention."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(32, 48, 64),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=16,
        mid_block_add_attention=False,
        sample_size=32,
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


def train(autoencoder: AutoencoderKL, images: Tensor, minutes: float) -> None:
    """L1 + 0.01 KL, AdamW, learning rate falling to a twentieth, for that long."""
    optimizer = torch.optim.AdamW(autoencoder.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(0)
    start, steps, loss = time.perf_counter(), 0, torch.zeros(())
    while (share := (time.perf_counter() - start) / (60 * minutes)) < 1:
        optimizer.param_groups[0]["lr"] = 1e-3 * max(0.05, 1 - share)
        batch = images[torch.randint(len(images), (32,), generator=generator)].float() / 127.5 - 1
        batch = batch.to(autoencoder.device)
        posterior = autoencoder.encode(batch).latent_dist
        loss = (autoencoder.decode(posterior.sample()).sample - batch).abs().mean()
        kl = 0.5 * (posterior.mean**2 + posterior.var - 1 - posterior.logvar).mean()
        optimizer.zero_grad()
        (loss + 1e-2 * kl).backward()
        torch.nn.utils.clip_grad_norm_(autoencoder.parameters(), 1.0)
        optimizer.step()
        steps += 1
    console.print(f"Autoencoder trained for {steps} steps of 32 images; last L1 {loss.item():.3f}.")


def plain_loop(decode: Decode, latent: Tensor, index: Tensor, num_probes: int, *, one_decode: bool) -> Tensor:
    """One sample and one probe at a time; every probe decodes anew unless `one_decode`."""
    estimator, influence = ProbeInfluence(num_probes), torch.zeros_like(latent)
    for n in range(len(latent)):
        image = leaf = None
        for probe in range(num_probes):
            if image is None or leaf is None or not one_decode:
                leaf = latent[n : n + 1].clone().requires_grad_()
                image = decode(leaf)
            vector = estimator.draw(index[n : n + 1], probe, image.shape[1:], image.device)
            (gradient,) = torch.autograd.grad(image, leaf, vector, retain_graph=one_decode)
            influence[n] += gradient[0].square() / num_probes
    return influence


def timed(function: Callable[[], Tensor], device: str) -> tuple[Tensor, float]:
    """Result and seconds."""
    start = time.perf_counter()
    result = function()
    if device == "cuda":
        torch.cuda.synchronize()
    return result, time.perf_counter() - start


def masks(options: argparse.Namespace) -> None:
    """Part 1."""
    torch.manual_seed(0)
    images = read_images(options.images, 5000) if options.images else None
    if options.autoencoder:
        autoencoder = AutoencoderKL.from_pretrained(options.autoencoder, low_cpu_mem_usage=False).to(options.device)
    else:
        autoencoder = small_autoencoder().to(options.device)
        if images is None:
            console.print("No --images: random weights and latents. Times only; pass CIFAR-10's parquet files for overlaps.")
        else:
            train(autoencoder, images, options.train_minutes)
    autoencoder.eval().requires_grad_(False)
    count = options.num_samples
    if images is None:
        latent = torch.randn(count, 4, 8, 8).to(options.device)
    else:
        with torch.no_grad():
            chosen = images[:count].float().to(options.device) / 127.5 - 1
            latent = autoencoder.encode(chosen).latent_dist.mean
    index = torch.arange(count)

    def decode(value: Tensor) -> Tensor:
        return autoencoder.decode(value).sample

    def run(estimator: ProbeInfluence | ShrunkInfluence | ExactInfluence) -> Callable[[], Tensor]:
        return lambda: stream_influence(estimator, decode, latent, index, batch_size=16).influence

    run(ProbeInfluence(1))()
    exact, exact_seconds = timed(run(ExactInfluence()), options.device)
    log = 0.5 * exact.flatten(1).double().log()
    centred = log - log.mean(1, keepdim=True)
    console.print(
        f"c = ln(G)/2: standard deviation between dimensions {centred.mean(0).std():.2f}, within a dimension over samples "
        f"{(centred - centred.mean(0)).std():.2f}."
    )
    rule = KeepTopInfluence(0.6)
    table = Table("method", "probes", "overlap", "ms a sample", "times faster", title=f"{count} samples, keep 60 %")
    plain, plain_seconds = timed(lambda: plain_loop(decode, latent, index, 16, one_decode=False), options.device)

    def add(name: str, probes: object, influence: Tensor, seconds: float) -> None:
        overlap = mask_overlap(rule(exact, index), rule(influence, index)).double()
        interval = f"{overlap.mean():.4f} ± {1.96 * overlap.std() / count**0.5:.4f}"
        table.add_row(name, str(probes), interval, f"{1000 * seconds / count:.1f}", f"{plain_seconds / seconds:.1f}")

    add("plain loop", 16, plain, plain_seconds)
    add(
        "plain loop, one decode a sample",
        16,
        *timed(lambda: plain_loop(decode, latent, index, 16, one_decode=True), options.device),
    )
    add("exact", "all", exact, exact_seconds)
    for probes in options.probes:
        add("batched", probes, *timed(run(ProbeInfluence(probes)), options.device))
        add("shrunk", probes, *timed(run(ShrunkInfluence(probes)), options.device))
        add("data-set-wide", probes, *timed(run(ShrunkInfluence(probes, residual_variance="none")), options.device))
    console.print(table)


def distortion(options: argparse.Namespace) -> None:
    """Part 2."""
    torch.manual_seed(0)
    autoencoder = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 16, 16, 16),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=256,
    )
    autoencoder.to(options.device).eval().requires_grad_(False)
    latent = torch.randn(1, 4, 32, 32, generator=torch.Generator().manual_seed(1)).to(options.device)

    def decode(value: Tensor) -> Tensor:
        return autoencoder.decode(value).sample

    jacobian = DecoderJacobian(decode, latent)
    num_dimensions, num_pixels = latent.numel(), jacobian.image.numel()
    unit = torch.eye(num_dimensions, device=options.device)[: options.columns].reshape(-1, *latent.shape)
    jacobian.times(unit[:1])
    _, seconds = timed(lambda: jacobian.times(unit), options.device)
    build = seconds / options.columns * num_dimensions

    vectors = 0
    original = DecoderJacobian.times

    def counting(self: DecoderJacobian, value: Tensor, **arguments: int) -> Tensor:
        nonlocal vectors
        vectors += len(value)
        return original(self, value, **arguments)

    with patch.object(DecoderJacobian, "times", counting):
        values, ours = timed(lambda: Distortion(vectors_per_pass=1).singular_values(decode, latent), options.device)
    held = vectors + 2 * 30 * 2  # all images of the basis; two blocks in double precision while products are taken
    table = Table("", "seconds a sample", "products", "MiB held", title=f"J is {num_pixels} x {num_dimensions}, rank 20")
    mib = num_pixels * 4 / 2**20
    table.add_row(
        f"build J ({options.columns} columns timed)", f"{build:.0f}", str(num_dimensions), f"{num_dimensions * mib:.0f}"
    )
    table.add_row("Distortion", f"{ours:.1f}", str(2 * vectors - 30), f"{held * mib:.0f}")
    table.add_row("ratio", f"{build / ours:.1f}", "", f"{num_dimensions / held:.1f}")
    console.print(table)
    console.print(f"Largest singular value {values[0, 0]:.3g}, 20th {values[0, -1]:.3g}.")


def main() -> None:
    """Runs both parts and prints their tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", help="CIFAR-10 as parquet files, a glob")
    parser.add_argument("--autoencoder", help="diffusers folder of a trained autoencoder for 3x32x32 images")
    parser.add_argument("--train-minutes", type=float, default=4.0)
    parser.add_argument("--num-samples", type=int, default=96)
    parser.add_argument("--probes", type=int, nargs="+", default=[1, 2, 3, 4, 8, 16])
    parser.add_argument("--columns", type=int, default=64)
    parser.add_argument("--num-threads", type=int, default=1)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--part", choices=["masks", "distortion", "both"], default="both")
    options = parser.parse_args()
    torch.set_num_threads(options.num_threads)
    if options.part != "masks":
        distortion(options)
    if options.part != "distortion":
        masks(options)


if __name__ == "__main__":
    main()
