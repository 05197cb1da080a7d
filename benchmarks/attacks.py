"""Attacks with shared denoiser passes against the same attacks written plainly: one call per timestep and mask.

    python benchmarks/attacks.py [--num-latents 1000] [--num-timesteps 20] [--num-masks 4] [--plain-batch-size 128]
                                 [--num-threads 1]

SimA, Loss, PIA and SecMI on 4x8x8 latents with a small UNet2DModel of random weights; seconds depend on the network, not on
what it has learned. The plain versions run through the latents in batches of their own, draw noise with `torch.randn` and
recompute for each mask what published scripts recompute. Each attack is also timed with one mask, where no pass is shared by
masks; those are the faster of two runs, taken in turn. Both versions are compared on the first latents with the same noise.
"""

import argparse
import math
import time
from collections.abc import Callable, Iterator

import torch
from diffusers import UNet2DModel
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from ldm_privacy.attacks.base import get_attack
from ldm_privacy.attacks.runner import attack_statistics, draw_noise

LATENT_SHAPE = (4, 8, 8)
NUM_COMPARED = 64
INTERVAL = 10
Predict = Callable[[Tensor, int], Tensor]


class Network:
    """A small UNet2DModel as a noise predictor."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.network = UNet2DModel(
            sample_size=LATENT_SHAPE[-1],
            in_channels=LATENT_SHAPE[0],
            out_channels=LATENT_SHAPE[0],
            block_out_channels=(32, 64),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "UpBlock2D"),
            add_attention=False,
            norm_num_groups=8,
        ).eval()
        self.alphas_cumprod = (1 - torch.linspace(1e-4, 2e-2, 1000, dtype=torch.float64)).cumprod(0)

    def __call__(self, noisy_latent: Tensor, timestep: Tensor, condition: Tensor | None) -> Tensor:
        """epsilon."""
        return self.network(noisy_latent, timestep).sample

    def predict(self, states: Tensor, timestep: int) -> Tensor:
        """epsilon, with one timestep for all."""
        return self(states, torch.full((len(states),), timestep), None)


# The plain versions: contributions at every timestep, one call each, for one batch.


def noised(latent: Tensor, noise: Tensor, abar: float) -> Tensor:
    """z_t."""
    return math.sqrt(abar) * latent + math.sqrt(1 - abar) * noise


def plain_sima(
    predict: Predict, abar: list[float], latent: Tensor, timesteps: list[int], noise: Tensor | None
) -> Iterator[Tensor]:
    """epsilon(z0, t)^4."""
    for timestep in timesteps:
        yield predict(latent, timestep) ** 4


def plain_loss(
    predict: Predict, abar: list[float], latent: Tensor, timesteps: list[int], noise: Tensor | None
) -> Iterator[Tensor]:
    """(n - epsilon(z_t, t))^2."""
    for place, timestep in enumerate(timesteps):
        drawn = torch.randn_like(latent) if noise is None else noise[place]
        yield (drawn - predict(noised(latent, drawn, abar[timestep]), timestep)) ** 2


def plain_pia(
    predict: Predict, abar: list[float], latent: Tensor, timesteps: list[int], noise: Tensor | None
) -> Iterator[Tensor]:
    """(e0 - epsilon(z_t, t))^4, e0 found once."""
    initial = predict(latent, 0)
    for timestep in timesteps:
        yield (initial - predict(noised(latent, initial, abar[timestep]), timestep)) ** 4


def plain_secmi(
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


PLAIN = {"sima": plain_sima, "loss": plain_loss, "pia": plain_pia, "secmi": plain_secmi}


@torch.no_grad()
def plain(
    name: str,
    network: Network,
    latent: Tensor,
    timesteps: list[int],
    keep_masks: Tensor,
    *,
    batch_size: int,
    noise: Tensor | None = None,
) -> Tensor:
    """(masks, timesteps, batch): a full run of the attack for each mask. `noise` (timesteps, *latent.shape) or drawn."""
    abar = network.alphas_cumprod.tolist()
    statistics = torch.empty(len(keep_masks), len(timesteps), len(latent))
    for mask, keep in enumerate(keep_masks):
        for start in range(0, len(latent), batch_size):
            batch = slice(start, start + batch_size)
            given = None if noise is None else noise[:, batch]
            for place, contribution in enumerate(PLAIN[name](network.predict, abar, latent[batch], timesteps, given)):
                statistics[mask, place, batch] = (contribution * keep[batch]).flatten(1).sum(1)
    return statistics


def seconds(run: Callable[[], Tensor]) -> float:
    """Wall time."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    """Times every attack both ways, with all masks and with one, checks that both agree, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-latents", type=int, default=1000)
    parser.add_argument("--num-timesteps", type=int, default=20)
    parser.add_argument("--num-masks", type=int, default=4)
    parser.add_argument("--plain-batch-size", type=int, default=128, help="latents per call of the plain versions")
    parser.add_argument("--num-threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.num_threads)

    generator = torch.Generator().manual_seed(0)
    network = Network()
    latent = torch.randn(options.num_latents, *LATENT_SHAPE, generator=generator)
    masks = torch.rand(options.num_masks, *latent.shape, generator=generator) < 0.6
    timesteps = list(range(0, INTERVAL * options.num_timesteps, INTERVAL))
    network.predict(latent[:NUM_COMPARED], 0)  # the first call allocates

    def both(name: str, keep_masks: Tensor) -> tuple[float, float]:
        return (
            seconds(lambda: plain(name, network, latent, timesteps, keep_masks, batch_size=options.plain_batch_size)),
            seconds(lambda: attack_statistics(get_attack(name), network, latent, timesteps, keep_masks)),
        )

    table = Table(
        *("attack", "masks", "plain s", "shared s", "ratio", "largest difference"),
        title=f"{options.num_latents:,} latents x {options.num_timesteps} timesteps, {options.num_threads} thread(s), "
        f"plain batches of {options.plain_batch_size}",
    )
    total = [0.0, 0.0]
    for name in track(PLAIN, "attacks"):
        difference = largest_difference(name, network, latent[:NUM_COMPARED], timesteps, masks[:, :NUM_COMPARED])
        one = [min(times) for times in zip(both(name, masks[:1]), both(name, masks[:1]))]
        many = both(name, masks)
        total = [sum(times) for times in zip(total, many)]
        for count, (slow, fast) in ((1, one), (options.num_masks, many)):
            table.add_row(name, str(count), f"{slow:.2f}", f"{fast:.2f}", f"{slow / fast:.2f}", f"{difference:.1e}")
    slow, fast = total
    table.add_row("all", str(options.num_masks), f"{slow:.2f}", f"{fast:.2f}", f"{slow / fast:.2f}", "")
    Console().print(table)


def largest_difference(name: str, network: Network, latent: Tensor, timesteps: list[int], keep_masks: Tensor) -> float:
    """Between both versions with the same noise, relative to the largest statistic."""
    noise = draw_noise(get_attack("loss"), latent, timesteps)
    expected = plain(name, network, latent, timesteps, keep_masks, batch_size=len(latent), noise=noise)
    result = attack_statistics(get_attack(name), network, latent, timesteps, keep_masks)
    return float((result - expected).abs().max() / expected.abs().max())


if __name__ == "__main__":
    main()
