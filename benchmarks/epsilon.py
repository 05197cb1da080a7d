"""How often a bound on epsilon lies above the truth, and how near it comes: simulated mechanisms whose epsilon is known.

    python -m benchmarks.epsilon [--num-simulations 1000] [--num-coins 512] [--seed 0]

Each simulation goes through the whole of `crossfit_epsilon`: each half chooses thresholds and number of guesses for the other.
`one` is its first fold alone; `sum` adds the right guesses of both halves, which is what the docstring says can't be done.

* flips: the score of a coin is the coin itself with the chance e^eps / (1 + e^eps), the other side otherwise (randomised
  response). All are equally exposed.
* Laplace: the coin (0 or 1) plus Laplace noise of scale 1 / eps. Few are surely exposed, so abstaining matters.
* brightness: epsilon is 0. The score is a feature of the image, which way round each half fits to its own coins for the other.
"""

import argparse
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from ldm_privacy.metrics import EpsilonBound, Half, crossfit_epsilon, epsilon_lower_bound

CONFIDENCE = 0.95
Mechanism = Callable[[np.random.Generator, np.ndarray], Sequence[np.ndarray]]
"""Coins -> the score of each, as the first half of them fits it and as the second does."""


def flips(epsilon: float) -> Mechanism:
    """Randomised response."""
    return lambda generator, coin: 2 * [np.where(generator.random(len(coin)) < 1 / (1 + np.exp(-epsilon)), coin, ~coin) * 1.0]


def laplace(epsilon: float) -> Mechanism:
    """The Laplace mechanism for a number that a coin changes by 1."""
    return lambda generator, coin: 2 * [coin + generator.laplace(scale=1 / epsilon, size=len(coin))]


def brightness(generator: np.random.Generator, coin: np.ndarray) -> Sequence[np.ndarray]:
    """Says nothing of the coins."""
    bright = generator.normal(size=len(coin))
    halves = (slice(0, len(coin) // 2), slice(len(coin) // 2, None))
    return [bright * np.sign(bright[half] @ (2.0 * coin[half] - 1)) for half in halves]


MECHANISMS: dict[tuple[str, float], Mechanism] = {
    **{("flips", epsilon): flips(epsilon) for epsilon in (0.0, 0.5, 1.0, 2.0, 4.0)},
    **{("Laplace", epsilon): laplace(epsilon) for epsilon in (0.5, 1.0, 2.0, 4.0)},
    ("brightness", 0.0): brightness,
}


def folds_of(mechanism: Mechanism, num_coins: int, generator: np.random.Generator) -> list[tuple[Half, Half]]:
    """One run of the mechanism: each half as it chooses, with the half that it chooses for."""
    coin = generator.random(num_coins) < 0.5
    rows, halves = mechanism(generator, coin), (slice(0, num_coins // 2), slice(num_coins // 2, None))
    return [
        tuple(Half(torch.from_numpy(row[half]), torch.from_numpy(coin[half])) for half in order)  # type: ignore[misc]
        for row, order in zip(rows, (halves, halves[::-1]))
    ]


def summed(bound: EpsilonBound) -> float:
    """What the right guesses of both halves together would show, were they independent."""
    right, guesses = (sum(getattr(half, name) for half in bound.halves) for name in ("num_correct", "num_guesses"))
    return epsilon_lower_bound(right, guesses, confidence=CONFIDENCE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-simulations", type=int, default=1000)
    parser.add_argument("--num-coins", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    began, generator = time.perf_counter(), np.random.default_rng(options.seed)
    table = Table("mechanism", "epsilon", "one: above", "mean", "both: above", "mean", "sum: above", "mean")
    for (name, truth), mechanism in MECHANISMS.items():
        found = []
        for _ in range(options.num_simulations):
            folds = folds_of(mechanism, options.num_coins, generator)
            both = crossfit_epsilon(folds, confidence=CONFIDENCE)
            found.append((crossfit_epsilon(folds[:1], confidence=CONFIDENCE).value, both.value, summed(both)))
        bounds = np.array(found).T
        table.add_row(name, f"{truth:g}", *(f"{each:.3f}" for row in bounds for each in ((row > truth).mean(), row.mean())))
    console = Console()
    console.print(table)
    console.print(
        f"Nominal: above at most {1 - CONFIDENCE:.2g}. {options.num_simulations} simulations a row, {options.num_coins} coins; "
        f"{time.perf_counter() - began:.0f} s."
    )


if __name__ == "__main__":
    main()
