"""False alarms of the onset detectors: simulated trainings whose denoiser knows nothing of membership.

    python -m benchmarks.onset [--num-trainings 1000] [--num-looks 20] [--seed 0]

Nominal is alpha = 0.05 for all looks of a training together. Samples are correlated from look to look (autoregressive, .9), as
audits of one training are. Skewed losses; a generator that repeats pictures of its own, which it has from neither side.
"""

import argparse
import math
import time
from collections.abc import Iterator

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from ldm_privacy.metrics import auroc_difference, loss_gap_rise
from ldm_privacy.metrics.memorized_generations import COPY_RATIO, copies_rise, discordant_copies
from ldm_privacy.metrics.neighbours import Neighbours, nearest_two
from ldm_privacy.watch.onset import OnsetDetector

ALPHA = 0.05
MEMORY = 0.9
NUM_GENERATIONS, NUM_PICTURES = 100, 60
"""Generations per look, and distinct pictures that the generator has."""


def autoregressive(generator: np.random.Generator, num_looks: int, *shape: int) -> Iterator[np.ndarray]:
    """Standard normal noise of the untrained denoiser's audit, then of each look."""
    noise = generator.normal(size=shape)
    for _ in range(num_looks + 1):
        yield noise
        noise = MEMORY * noise + math.sqrt(1 - MEMORY**2) * generator.normal(size=shape)


def attack_lowers(
    generator: np.random.Generator, num_looks: int, num_samples: int, confidences: list[float]
) -> list[list[float]]:
    """Members stand half a standard deviation above the held-out from the start: the autoencoder's leak, which never grows."""
    is_member = np.arange(2 * num_samples) < num_samples
    scores = [torch.from_numpy(noise + 0.5 * is_member) for noise in autoregressive(generator, num_looks, 2 * num_samples)]
    labels = torch.from_numpy(is_member)
    return [
        [
            auroc_difference(score, scores[0], labels, confidence=confidence, alternative="greater").lower
            for score, confidence in zip(scores[1:], confidences)
        ]
    ]


def loss_lowers(
    generator: np.random.Generator, num_looks: int, num_samples: int, confidences: list[float]
) -> list[list[float]]:
    """Losses that fall as training goes on, the more the harder a sample is: lognormal, skewness 6."""
    is_member = torch.arange(2 * num_samples) < num_samples
    difficulty = generator.lognormal(size=2 * num_samples)
    losses = [
        torch.from_numpy(difficulty * (math.exp(-look / 5) + 0.2 + 0.1 * noise))
        for look, noise in enumerate(autoregressive(generator, num_looks, 2 * num_samples))
    ]
    return [
        [
            loss_gap_rise(loss, losses[0], is_member, confidence=confidence).lower
            for loss, confidence in zip(losses[1:], confidences)
        ]
    ]


def copy_lowers(
    generator: np.random.Generator, num_looks: int, num_samples: int, confidences: list[float]
) -> list[list[float]]:
    """Images of two numbers each (so that one generation in nine is a copy by chance); repeated, drifting pictures.

    Also with generations as the trials in place of distinct copied images, to show why they are not.
    """
    images = torch.from_numpy(generator.normal(size=(2 * num_samples, 1, 1, 2))).float()
    members, heldout = torch.arange(2 * num_samples).split(num_samples)
    looks = np.stack(list(autoregressive(generator, num_looks, NUM_PICTURES, 2))[1:])
    chosen = generator.integers(NUM_PICTURES, size=(num_looks, NUM_GENERATIONS, 1))
    generated = np.take_along_axis(looks, chosen, 1) + 0.01 * generator.normal(size=(num_looks, NUM_GENERATIONS, 2))
    query = torch.from_numpy(generated).float().reshape(-1, 1, 1, 2)
    sides = [nearest_two(query, images.__getitem__, index) for index in (members, heldout)]
    distinct, repeated = [], []
    for look, confidence in enumerate(confidences):
        rows = slice(look * NUM_GENERATIONS, (look + 1) * NUM_GENERATIONS)
        here = [Neighbours(side.distance[rows], side.sample_index[rows]) for side in sides]
        distinct.append(copies_rise(*discordant_copies(*here), confidence=confidence).lower)
        copies = [side.ratio < COPY_RATIO for side in here]
        counts = int((copies[0] & ~copies[1]).sum()), int((copies[1] & ~copies[0]).sum())
        repeated.append(copies_rise(*counts, confidence=confidence).lower)
    return [distinct, repeated]


QUANTITIES = {
    "attack AUROC": (attack_lowers, ("",)),
    "loss gap": (loss_lowers, ("",)),
    "memorized generations": (copy_lowers, ("", ", generations as trials")),
}


def main() -> None:
    """Simulates and prints the share of trainings with an onset."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-trainings", type=int, default=1000)
    parser.add_argument("--num-looks", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    start = time.perf_counter()
    confidences = [OnsetDetector(confidence=1 - ALPHA).confidence_at(look) for look in range(1, options.num_looks + 1)]
    table = Table(
        *("quantity", "samples per side", "1 look in a row", "2 looks in a row"),
        title=f"Share of {options.num_trainings:,} trainings x {options.num_looks} looks with a false onset (nominal {ALPHA})",
    )
    for quantity, (simulate, variants) in QUANTITIES.items():
        for num_samples in (100, 417):
            generator = np.random.default_rng([options.seed, num_samples])
            alarms = np.zeros((len(variants), 2))
            for _ in range(options.num_trainings):
                for place, lowers in enumerate(simulate(generator, options.num_looks, num_samples, confidences)):
                    for num_consecutive in (1, 2):
                        detector = OnsetDetector(num_consecutive, 1 - ALPHA)
                        for epoch, lower in enumerate(lowers, start=1):
                            detector.update(epoch, lower)
                        alarms[place, num_consecutive - 1] += detector.onset_epoch is not None
            for place, variant in enumerate(variants):
                rates = alarms[place] / options.num_trainings
                table.add_row(quantity + variant, str(num_samples), *(f"{rate:.3f}" for rate in rates))
    console = Console(width=110)
    console.print(table)
    error = math.sqrt(ALPHA * (1 - ALPHA) / options.num_trainings)
    console.print(f"Standard error at {ALPHA}: {error:.3f}. {time.perf_counter() - start:.0f} s.")


if __name__ == "__main__":
    main()
