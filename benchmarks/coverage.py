"""Coverage of the intervals: how often each one that should hold the truth 95 times in 100 does.

    python benchmarks/coverage.py [--num-simulations 1000] [--num-bootstrap 400] [--sizes 100 417 2500]

Members and held-out are drawn from known distributions, held-out Z and members Z + shift, Z normal or Student's t with 3
degrees of freedom, so the truth of every number is known; a second score with 0.6 of the shift and correlation 0.6 serves the
paired difference. The carried-over threshold has an FPR of 1 % on another draw of the same size. ASR's interval takes
the mean of 100 resamples. One core; prints a Markdown table.
"""

import argparse
import math
import time

import numpy as np
import torch
from scipy import integrate, optimize, stats

from ldm_privacy.metrics import (
    attack_success_rate_interval,
    auroc_difference,
    auroc_interval,
    threshold_at_fpr,
    tpr_at_fpr_interval,
    tpr_at_threshold,
)
from ldm_privacy.types import Estimate

TARGET = 0.01
CASES = [("normal", 0.5), ("normal", 0.6), ("normal", 0.75), ("normal", 0.9), ("normal", 0.98), ("Student t, 3", 0.75)]
COLUMNS = ["AUROC", "difference", "TPR@1%FPR", "TPR carried", "FPR carried", "ASR"]


class Scores:
    """Two correlated scores of members and held-out samples whose true metrics are known."""

    def __init__(self, family: str, auroc: float):
        self.is_normal = family == "normal"
        self.law = stats.norm if self.is_normal else stats.t(3)
        self.shift = optimize.brentq(lambda shift: self.auroc(shift) - auroc, -0.1, 20.0)
        self.weak_shift = 0.6 * self.shift

    def auroc(self, shift: float) -> float:
        """P(Z + shift > Z')."""
        return integrate.quad(lambda z: self.law.pdf(z) * self.law.cdf(z + shift), -np.inf, np.inf, epsabs=1e-10)[0]

    def draw(self, generator: np.random.Generator, num_samples: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Both scores, (2, 2 * num_samples); members first."""
        noise = generator.normal(size=(2, 2 * num_samples))
        noise[1] = 0.6 * noise[0] + 0.8 * noise[1]
        if not self.is_normal:
            noise /= np.sqrt(generator.chisquare(3, size=2 * num_samples) / 3)
        noise[:, :num_samples] += [[self.shift], [self.weak_shift]]
        return torch.from_numpy(noise[0]), torch.from_numpy(noise[1])


def coverage(scores: Scores, num_samples: int, num_simulations: int, num_bootstrap: int, seed: int) -> list[float]:
    """Share of the simulations whose interval holds the truth, in the order of `COLUMNS`."""
    generator = np.random.default_rng([num_samples, seed])
    is_member = torch.arange(2 * num_samples) < num_samples
    law, shift = scores.law, scores.shift
    auroc, weak_auroc = scores.auroc(shift), scores.auroc(scores.weak_shift)
    covered = np.zeros(len(COLUMNS))
    for index in range(num_simulations):
        score, weak = scores.draw(generator, num_samples)
        calibration, _ = scores.draw(generator, num_samples)
        threshold = float(threshold_at_fpr(calibration, is_member, TARGET))
        carried = tpr_at_threshold(score, is_member, threshold)
        pairs: list[tuple[Estimate, float]] = [
            (auroc_interval(score, is_member), auroc),
            (auroc_difference(score, weak, is_member), auroc - weak_auroc),
            (
                tpr_at_fpr_interval(score, is_member, TARGET, num_bootstrap=num_bootstrap, seed=index),
                float(law.sf(law.isf(TARGET) - shift)),
            ),
            (carried.tpr, float(law.sf(threshold - shift))),
            (carried.fpr, float(law.sf(threshold))),
            # Symmetric and unimodal: the best threshold lies half-way.
            (attack_success_rate_interval(score, is_member, num_bootstrap=100, seed=index), float(law.cdf(shift / 2))),
        ]
        covered += [estimate.lower <= truth <= estimate.upper for estimate, truth in pairs]
    return list(covered / num_simulations)


def main() -> None:
    """Prints the table, a row per size and distribution."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-simulations", type=int, default=1000)
    parser.add_argument("--num-bootstrap", type=int, default=400, help="of TPR@1%%FPR")
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 417, 2500], help="samples per side")
    options = parser.parse_args()
    torch.set_num_threads(1)
    start = time.perf_counter()
    print(f"| per side | scores | true AUROC | {' | '.join(COLUMNS)} |")
    print("|" + "---|" * (3 + len(COLUMNS)))
    for num_samples in options.sizes:
        for case, (family, auroc) in enumerate(CASES):
            shares = coverage(Scores(family, auroc), num_samples, options.num_simulations, options.num_bootstrap, case)
            cells = " | ".join(f"{share:.3f}" for share in shares)
            print(f"| {num_samples:,} | {family} | {auroc} | {cells} |", flush=True)
    error = math.sqrt(0.95 * 0.05 / options.num_simulations)
    print(
        f"\nNominal 0.95. {options.num_simulations:,} simulations a row, {options.num_bootstrap} resamples for TPR: "
        f"standard error of a share {error:.3f}. {time.perf_counter() - start:.0f} s."
    )


if __name__ == "__main__":
    main()
