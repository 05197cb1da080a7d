"""Attacks of this library beside the same attacks as the published code and as batched code have them.

    python -m benchmarks.attacks [--num-latents 1000] [--num-timesteps 20] [--num-masks 4] [--batch-size 64] [--rounds 5]
                                 [--device cuda] [--network paper]

SimA, Loss, PIA and SecMI on 4x8x8 latents that were encoded once, with a UNet2DModel of random weights, a small one or the
published one; seconds depend on the network, not on what it has learned. The published code (2509.25003, 2511.20592) calls the
denoiser once a timestep and batch (SecMI: once for the way up, once for the way back) and takes one mask a run; batched code
masks what such a call gives with all masks at once. Both draw noise with `torch.randn`. All are timed in turn, `--rounds`
times; times are medians over the rounds, ratios medians of each round's ratio. Results are compared on the first latents with
the same noise. On a GPU all use TensorFloat-32, as audits do.
"""

import argparse
import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DModel
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from benchmarks.in_turn import in_turn, speedup, times_faster
from benchmarks.json_file import write_json
from ldm_privacy.attacks.base import get_attack
from ldm_privacy.attacks.runner import attack_statistics, draw_noise
from ldm_privacy.device import allow_tf32

LATENT_SHAPE = (4, 8, 8)
NUM_COMPARED = 64
INTERVAL = 10
Predict = Callable[[Tensor, int], Tensor]


SIZES = {"small": ((32, 64), 1, 8), "paper": ((128, 256, 256, 256), 2, 32)}
"""Channels of the blocks, layers of each, groups of the normalisation."""


class Network:
    """A UNet2DModel as a noise predictor."""

    def __init__(self, size: str = "small", device: str = "cpu") -> None:
        torch.manual_seed(0)
        channels, layers, groups = SIZES[size]
        self.network = UNet2DModel(
            sample_size=LATENT_SHAPE[-1],
            in_channels=LATENT_SHAPE[0],
            out_channels=LATENT_SHAPE[0],
            block_out_channels=channels,
            layers_per_block=layers,
            down_block_types=("DownBlock2D",) * len(channels),
            up_block_types=("UpBlock2D",) * len(channels),
            add_attention=False,
            norm_num_groups=groups,
        ).eval()
        self.network.to(device)
        self.alphas_cumprod = (1 - torch.linspace(1e-4, 2e-2, 1000, dtype=torch.float64)).cumprod(0)

    def __call__(self, noisy_latent: Tensor, timestep: Tensor, condition: Tensor | None) -> Tensor:
        """epsilon."""
        return self.network(noisy_latent, timestep).sample

    def predict(self, states: Tensor, timestep: int) -> Tensor:
        """epsilon, with one timestep for all."""
        return self(states, torch.full((len(states),), timestep, device=states.device), None)


# As published: contributions at every timestep, one call each, for one batch.


def noised(latent: Tensor, noise: Tensor, abar: float) -> Tensor:
    """z_t."""
    return math.sqrt(abar) * latent + math.sqrt(1 - abar) * noise


def published_sima(
    predict: Predict, abar: list[float], latent: Tensor, timesteps: list[int], noise: Tensor | None
) -> Iterator[Tensor]:
    """epsilon(z0, t)^4."""
    for timestep in timesteps:
        yield predict(latent, timestep) ** 4


def published_loss(
    predict: Predict, abar: list[float], latent: Tensor, timesteps: list[int], noise: Tensor | None
) -> Iterator[Tensor]:
    """(n - epsilon(z_t, t))^2."""
    for place, timestep in enumerate(timesteps):
        drawn = torch.randn_like(latent) if noise is None else noise[place]
        yield (drawn - predict(noised(latent, drawn, abar[timestep]), timestep)) ** 2


def published_pia(
    predict: Predict, abar: list[float], latent: Tensor, timesteps: list[int], noise: Tensor | None
) -> Iterator[Tensor]:
    """(e0 - epsilon(z_t, t))^4, e0 found once."""
    initial = predict(latent, 0)
    for timestep in timesteps:
        yield (initial - predict(noised(latent, initial, abar[timestep]), timestep)) ** 4


def published_secmi(
    predict: Predict, abar: list[float], latent: Tensor, timesteps: list[int], noise: Tensor | None
) -> Iterator[Tensor]:
    """Up and back along one inversion, a call for each way."""

    def step(state: Tensor, start: int, end: int) -> Tensor:
        epsilon = predict(state, start)
        clean = (state - math.sqrt(1 - abar[start]) * epsilon) / math.sqrt(abar[start])
        return noised(clean, epsilon, abar[end])

    state = latent
    for timestep in timesteps:
        above = step(state, timestep, timestep + INTERVAL)
        yield (step(above, timestep + INTERVAL, timestep) - state) ** 2
        state = above


PUBLISHED = {"sima": published_sima, "loss": published_loss, "pia": published_pia, "secmi": published_secmi}


@torch.no_grad()
def batched(
    name: str,
    network: Network,
    latent: Tensor,
    timesteps: list[int],
    keep_masks: Tensor,
    *,
    batch_size: int,
    noise: Tensor | None = None,
) -> Tensor:
    """(masks, timesteps, batch): all masks of every call. `noise` (timesteps, *latent.shape) or drawn."""
    abar = network.alphas_cumprod.tolist()
    statistics = torch.empty(len(keep_masks), len(timesteps), len(latent), device=latent.device)
    for start in range(0, len(latent), batch_size):
        batch = slice(start, start + batch_size)
        given = None if noise is None else noise[:, batch]
        for place, contribution in enumerate(PUBLISHED[name](network.predict, abar, latent[batch], timesteps, given)):
            statistics[:, place, batch] = (contribution * keep_masks[:, batch]).flatten(2).sum(2)
    return statistics


def main() -> None:
    """Times every attack in each way, checks that they agree, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-latents", type=int, default=1000)
    parser.add_argument("--num-timesteps", type=int, default=20)
    parser.add_argument("--num-masks", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=64, help="latents per call of the published and the batched code")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--num-threads", type=int, default=1)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--network", choices=SIZES, default="small")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    options = parser.parse_args()
    torch.set_num_threads(options.num_threads)
    if options.device == "cuda":
        allow_tf32(True)

    generator = torch.Generator().manual_seed(0)
    network = Network(options.network, options.device)
    latent = torch.randn(options.num_latents, *LATENT_SHAPE, generator=generator)
    masks = (torch.rand(options.num_masks, *latent.shape, generator=generator) < 0.6).to(options.device)
    latent = latent.to(options.device)
    timesteps = list(range(0, INTERVAL * options.num_timesteps, INTERVAL))
    network.predict(latent[:NUM_COMPARED], 0)  # the first call allocates

    def run(name: str, way: str) -> Tensor:
        if way == "ours":
            return attack_statistics(get_attack(name), network, latent, timesteps, masks)
        parts = masks.split(1) if way == "published" else [masks]
        return torch.cat([batched(name, network, latent, timesteps, part, batch_size=options.batch_size) for part in parts])

    variants = {(name, way): partial(run, name, way) for name in PUBLISHED for way in ("published", "batched", "ours")}
    timings = in_turn(variants, track(range(options.rounds), "attacks"))
    table = Table(
        *("attack", "published s", "batched s", "ours s", "faster than published", "than batched", "largest difference"),
        box=box.MARKDOWN,
        title=f"{options.num_latents:,} latents x {options.num_timesteps} timesteps x {options.num_masks} masks, "
        f"{options.num_threads} thread(s), batches of {options.batch_size}",
    )
    measured: dict[str, Any] = {key: vars(options)[key] for key in ("network", "num_latents", "num_timesteps", "num_masks")}
    measured["attacks"] = {}
    for name in PUBLISHED:
        difference = largest_difference(name, network, latent[:NUM_COMPARED], timesteps, masks[:, :NUM_COMPARED])
        published, together, ours = (timings[name, way] for way in ("published", "batched", "ours"))
        seconds = [f"{each.median:.2f}" for each in (published, together, ours)]
        table.add_row(name, *seconds, times_faster(ours, published), times_faster(ours, together), f"{difference:.1e}")
        ratios = {"published": speedup(ours, published), "batched": speedup(ours, together)}
        measured["attacks"][name] = {"seconds": ours.median, "faster": ratios, "difference": difference}
    write_json(options.json, measured)
    Console(width=140).print(table)


def largest_difference(name: str, network: Network, latent: Tensor, timesteps: list[int], keep_masks: Tensor) -> float:
    """Between batched code and ours with the same noise, relative to the largest statistic."""
    noise = draw_noise(get_attack("loss"), latent, timesteps)
    expected = batched(name, network, latent, timesteps, keep_masks, batch_size=len(latent), noise=noise)
    result = attack_statistics(get_attack(name), network, latent, timesteps, keep_masks)
    return float((result - expected).abs().max() / expected.abs().max())


if __name__ == "__main__":
    main()
