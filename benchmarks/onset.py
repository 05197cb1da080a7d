"""False alarms of the onset detectors: simulated trainings whose denoiser knows nothing of membership.

    python -m benchmarks.onset [--num-trainings 1000] [--num-looks 20] [--seed 0] [--only WORD]
    python -m benchmarks.onset --run runs/digits [--num-trainings 200]

With `--run` the audits are those of a run, and its labels are permuted within each half: every choice and every calibration is
made again at every look. Nominal is alpha = 0.05 for all looks of a training together. Samples are correlated from look to look
(autoregressive, .9), as audits of one training are. Attack scores are of four timesteps, mostly of how difficult an image is,
which its complexity shows in part; with a leak that is there from the start and never grows, and without. Skewed losses; a
generator that repeats pictures of its own, which it has from neither side.
"""

import argparse
import math
import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.kept_run import Looks, kept_looks
from ldm_privacy.audit.calibrate import derivations
from ldm_privacy.audit.kept import KeptScores
from ldm_privacy.audit.row import paired, standing
from ldm_privacy.audit.scores import AuditScores
from ldm_privacy.audit.sweep import choose, reported_halves
from ldm_privacy.metrics import auroc_difference, loss_gap_rise
from ldm_privacy.metrics.memorized_generations import COPY_RATIO, copies_rise, discordant_copies
from ldm_privacy.metrics.neighbours import Neighbours, nearest_two
from ldm_privacy.registry import CALIBRATIONS
from ldm_privacy.types import AuditKey
from ldm_privacy.watch.onset import OnsetDetector

ALPHA = 0.05
MEMORY = 0.9
NUM_GENERATIONS, NUM_PICTURES = 100, 60
"""Generations per look, and distinct pictures that the generator has."""


def autoregressive(generator: np.random.Generator, num_looks: int, *shape: int, memory: float = MEMORY) -> Iterator[np.ndarray]:
    """Standard normal noise of the untrained denoiser's audit, then of each look."""
    noise = generator.normal(size=shape)
    for _ in range(num_looks + 1):
        yield noise
        noise = memory * noise + math.sqrt(1 - memory**2) * generator.normal(size=shape)


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


def calibrated_lowers(
    generator: np.random.Generator,
    num_looks: int,
    num_samples: int,
    confidences: list[float],
    *,
    leak: float = 0.0,
    memory: float = MEMORY,
) -> list[list[float]]:
    """The plain attack, and its calibrated scores: four timesteps of difficulty, drifting noise and a leak."""
    difficulty, is_member = generator.normal(size=2 * num_samples), np.arange(2 * num_samples) < num_samples
    index = torch.arange(2 * num_samples)
    kept = {
        look: KeptScores(index, {KEY.attack: [0, 1, 2, 3]}, {KEY: torch.from_numpy(score)[None].float()}, {})
        for look, score in enumerate(
            0.5 * noise - difficulty + leak * is_member
            for noise in autoregressive(generator, num_looks, 4, 2 * num_samples, memory=memory)
        )
    }
    complexity = torch.from_numpy(difficulty + generator.normal(size=2 * num_samples))
    is_calibration = torch.from_numpy(generator.random(2 * num_samples) < 0.5)
    labels = torch.from_numpy(is_member)
    data = AuditScores(index, labels, is_calibration, None, {KEY.attack: [0, 1, 2, 3]}, kept[0].scores, {KEY: 1.0})
    found = derivations({name: CALIBRATIONS.get(name)() for name in CALIBRATED}, [KEY])
    looks = Looks(kept, data, complexity, found, {KEY.attack: False})
    return list(lowers_of(looks, labels, confidences).values())


def lowers_of(looks: Looks, is_member: torch.Tensor, confidences: list[float]) -> dict[AuditKey, list[float]]:
    """What `Memorization` tests at each look but the first: the rise of each calibrated score, and of what it is made of."""
    lowers: dict[AuditKey, list[float]] = {}
    for number, look in enumerate(looks.kept):
        data = looks.at(look, is_member)
        keys = dict.fromkeys(key for each in looks.found for key in (each.of, each.key))
        choices = {key: choose({1.0: data.scores[key]}, data) for key in keys}
        scores = {key: standing(data.scores[key], choice.places, data) for key, choice in choices.items()}
        if number == 0:
            before = scores
        for key, choice in choices.items() if number else ():
            fitted = data.num_fitted.get(key, 0)
            halves = reported_halves({1.0: data.scores[key]}, choice, data, num_fitted=fitted)
            rise = paired(halves, before[key], data, confidences[number - 1], alternative="greater")
            lowers.setdefault(key, []).append(rise.lower)
    return lowers


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


KEY = AuditKey("attack", "all")
CALIBRATED = ("complexity", "gained", "history", "calibrated")
_VARIANTS = ("", *(f", {name}" for name in CALIBRATED))
QUANTITIES = {
    "attack AUROC": (attack_lowers, ("",)),
    "attack AUROC, cross-fitted": (calibrated_lowers, _VARIANTS),
    "the same with a leak": (partial(calibrated_lowers, leak=0.5), _VARIANTS),
    "with a leak, looks correlated .5": (partial(calibrated_lowers, leak=0.5, memory=0.5), _VARIANTS),
    "loss gap": (loss_lowers, ("",)),
    "memorized generations": (copy_lowers, ("", ", generations as trials")),
}


def alarm_shares(trainings: Iterable[list[list[float]]]) -> np.ndarray:
    """(variants, 2) shares of trainings with an onset: the first look above 0, and two in a row; of lower bounds by look."""
    alarms = []
    for variants in trainings:
        alarms.append(np.zeros((len(variants), 2)))
        for place, lowers in enumerate(variants):
            for num_consecutive in (1, 2):
                detector = OnsetDetector(num_consecutive, 1 - ALPHA)
                for epoch, lower in enumerate(lowers, start=1):
                    detector.update(epoch, lower)
                alarms[-1][place, num_consecutive - 1] = detector.onset_epoch is not None
    return np.mean(alarms, axis=0)


def main() -> None:
    """Simulates and prints the share of trainings with an onset."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-trainings", type=int, default=1000)
    parser.add_argument("--num-looks", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="quantities that have this word in their name")
    parser.add_argument("--run", type=Path, help="permute the labels of this run's audits instead")
    options = parser.parse_args()
    torch.set_num_threads(1)
    start = time.perf_counter()
    looks = kept_looks(options.run) if options.run else None
    num_looks = options.num_looks if looks is None else len(looks.kept) - 1
    confidences = [OnsetDetector(confidence=1 - ALPHA).confidence_at(look) for look in range(1, num_looks + 1)]
    table = Table(
        *("quantity", "samples per side", "1 look in a row", "2 looks in a row"),
        title=f"Share of {options.num_trainings:,} trainings x {num_looks} looks with a false onset (nominal {ALPHA})",
    )
    chosen = {} if looks is not None else {name: each for name, each in QUANTITIES.items() if options.only in name}
    for quantity, (simulate, variants) in chosen.items():
        for num_samples in (100, 417):
            generator = np.random.default_rng([options.seed, num_samples])
            each = track(range(options.num_trainings), f"{quantity}, {num_samples} a side", transient=True)
            trainings = (simulate(generator, num_looks, num_samples, confidences) for _ in each)
            for variant, rates in zip(variants, alarm_shares(trainings)):
                table.add_row(quantity + variant, str(num_samples), *(f"{rate:.3f}" for rate in rates))
    if looks is not None:
        labels = track(looks.permuted(options.num_trainings, options.seed), "Permutations", transient=True)
        found = [lowers_of(looks, each, confidences) for each in labels]
        sides = f"{int(looks.data.is_member.sum())}, {int((~looks.data.is_member).sum())}"
        for key, rates in zip(found[0], alarm_shares(list(each.values()) for each in found)):
            table.add_row(str(key), sides, *(f"{rate:.3f}" for rate in rates))
    console = Console(width=110)
    console.print(table)
    error = math.sqrt(ALPHA * (1 - ALPHA) / options.num_trainings)
    console.print(f"Standard error at {ALPHA}: {error:.3f}. {time.perf_counter() - start:.0f} s.")


if __name__ == "__main__":
    main()
