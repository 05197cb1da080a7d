"""Coverage of the intervals: how often each one that should hold the truth 95 times in 100 does.

    python benchmarks/coverage.py [--part plain] [--num-simulations 1000] [--num-bootstrap 400] [--sizes 100 417 2500]
    python benchmarks/coverage.py --part crossfit [--num-simulations 1000] [--num-bootstrap 400] [--sizes 100 400 2000]

Members and held-out are drawn from known distributions, held-out Z and members Z + shift, Z normal or Student's t with 3
degrees of freedom, so the truth of every number is known; a second score with 0.6 of the shift and correlation 0.6 serves the
paired difference. The carried-over threshold has an FPR of 1 % on another draw of the same size. ASR's interval takes
the mean of 100 resamples. One core; prints a Markdown table.

`crossfit`: the samples fall into halves by a coin; each half chooses the best of ten candidates (correlation 0.5), or fits a
direction to four features, for the other, which reports it. One half alone is compared with both, and with both taken for
independent. `difference` is that to ten candidates of 0.8 of the shift and correlation 0.9 with the first ten, or to the first
feature alone. Rates and tests of both halves are those of scores that were standardised by median and quartiles of the held-out
samples of the half that chose; their truth is that of the mixture. `Welch` is the share of the one-sided lower bounds that lie
above the true difference of means: nominal 0.05.
"""

import argparse
import math
import time
from collections import defaultdict

import numpy as np
import torch
from scipy import integrate, optimize, stats
from torch import Tensor

from ldm_privacy.metrics import (
    Half,
    attack_success_rate_interval,
    auroc,
    auroc_difference,
    auroc_interval,
    choice_widening,
    crossfit_auroc,
    crossfit_difference,
    crossfit_rates,
    threshold_at_fpr,
    tpr_at_fpr_interval,
    tpr_at_threshold,
    welch_verdict,
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
    strong_area, weak_area = scores.auroc(shift), scores.auroc(scores.weak_shift)
    covered = np.zeros(len(COLUMNS))
    for index in range(num_simulations):
        score, weak = scores.draw(generator, num_samples)
        calibration, _ = scores.draw(generator, num_samples)
        threshold = float(threshold_at_fpr(calibration, is_member, TARGET))
        carried = tpr_at_threshold(score, is_member, threshold)
        pairs: list[tuple[Estimate, float]] = [
            (auroc_interval(score, is_member), strong_area),
            (auroc_difference(score, weak, is_member), strong_area - weak_area),
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


CROSSFIT_COLUMNS = [*COLUMNS, "Welch"]
WAYS = ["one half", "both", "both, as if independent"]
CROSSFIT_CASES: list[tuple[str, list[float], bool]] = [
    ("ten, AUROC 0.5", [0.5] * 10, False),
    ("ten, AUROC 0.75", [0.75] * 10, False),
    ("ten, AUROC 0.95", [0.95] * 10, False),
    ("one 0.75, nine 0.6", [0.75] + [0.6] * 9, False),
    ("fit to four, AUROC 0.5", [0.5] * 4, True),
    ("fit to four, 0.6 and three 0.5", [0.6] + [0.5] * 3, True),
]


class Crosswise:
    """Both halves of one simulation, with what they chose (or fitted) for each other and its truth.

    Attributes:
        halves: They report normal scores of variance 1, members shifted by `shift` (2,).
        weak: What `difference` compares with, shifted by `weak_shift`.
        own: (samples,) per half: what it reports, but of the samples of the half that chose it.
        own_is_member: Theirs.
    """

    def __init__(self, generator: np.random.Generator, areas: list[float], is_fitted: bool, num_samples: int):
        shift, is_member = math.sqrt(2) * stats.norm.ppf(areas), np.arange(2 * num_samples) < num_samples
        noise = generator.normal(size=(2, len(shift), len(is_member)))
        if not is_fitted:
            shared = generator.normal(size=(2, 1, len(is_member)))
            noise = math.sqrt(0.5) * (noise + shared)
        first = noise[0] + shift[:, None] * is_member
        second = 0.9 * noise[0] + math.sqrt(0.19) * noise[1] + 0.8 * shift[:, None] * is_member
        coin = generator.random(len(is_member)) < 0.5
        rows, labels = ([torch.from_numpy(value[..., side]) for side in (coin, ~coin)] for value in (first, is_member))
        weak_rows = [torch.from_numpy(second[:, side]) for side in (coin, ~coin)]
        if is_fitted:
            aims = [row[:, label].mean(dim=1) - row[:, ~label].mean(dim=1) for row, label in zip(rows, labels)][::-1]
            aims = [aim / aim.norm() for aim in aims]
            self.halves = [Half(aim @ row, label, num_fitted=len(aim)) for aim, row, label in zip(aims, rows, labels)]
            self.own = [aim @ row for aim, row in zip(aims, rows[::-1])]
            self.weak = [Half(row[0], label) for row, label in zip(rows, labels)]
            self.shift, self.weak_shift = np.array([float(aim[0]) for aim in aims]) * shift[0], shift[[0, 0]]
        else:
            self.halves, self.weak = self._chosen(rows, labels), self._chosen(weak_rows, labels)
            self.own = [row[half.chosen] for row, half in zip(rows[::-1], self.halves)]
            self.shift = shift[[half.chosen for half in self.halves]]
            self.weak_shift = 0.8 * shift[[half.chosen for half in self.weak]]
        self.own_is_member = labels[::-1]

    @staticmethod
    def _chosen(rows: list[Tensor], labels: list[Tensor]) -> list[Half]:
        areas = [auroc(row, label) for row, label in zip(rows, labels)]
        chosen = [int(area.argmax()) for area in areas[::-1]]
        return [Half(row, label, place, area=area) for row, label, place, area in zip(rows, labels, chosen, areas)]


def crosswise_estimates(drawn: Crosswise, way: str, num_bootstrap: int, seed: int) -> dict[str, tuple[Estimate, float]]:
    """Reported intervals with their truth by column; all of them, or those that know of the choice."""
    taken = slice(1 if way == "one half" else 2)
    halves, weak, shift, weak_shift = (each[taken] for each in (drawn.halves, drawn.weak, drawn.shift, drawn.weak_shift))
    own = list(zip(drawn.own, drawn.own_is_member))[taken]
    thresholds = [float(threshold_at_fpr(score, label, TARGET)) for score, label in own]
    quartiles = [torch.quantile(score[~label], torch.tensor([0.25, 0.5, 0.75]).double()).tolist() for score, label in own]
    place, scale = (np.array(values) for values in zip(*((median, high - low) for low, median, high in quartiles)))
    score = torch.cat([(half.reported - float(p)) / float(s) for half, p, s in zip(halves, place, scale)])
    is_member = torch.cat([half.is_member for half in halves])

    def fpr(cut: np.ndarray | float) -> np.ndarray:
        return stats.norm.sf(np.multiply.outer(cut, scale) + place).mean(axis=-1)

    def tpr(cut: np.ndarray | float) -> np.ndarray:
        return stats.norm.sf(np.multiply.outer(cut, scale) + place - shift).mean(axis=-1)

    widening = choice_widening(halves)
    if way == WAYS[2]:
        halves, weak = ([Half(half.reported, half.is_member) for half in each] for each in (halves, weak))
        widening = 1.0
    welch = welch_verdict(score[is_member], score[~is_member], widening=widening)
    area, weak_area = (float(stats.norm.cdf(each / math.sqrt(2)).mean()) for each in (shift, weak_shift))
    found = {
        "AUROC": (crossfit_auroc(halves), area),
        "difference": (crossfit_difference(halves, weak), area - weak_area),
        "Welch": (Estimate(welch.difference, welch.lower, np.inf), float((shift / scale).mean())),
    }
    if way == WAYS[2]:
        return found
    rates, cuts = crossfit_rates(halves, thresholds), np.linspace(-3, 8, 1101)
    return found | {
        "TPR@1%FPR": (
            tpr_at_fpr_interval(score, is_member, TARGET, num_bootstrap=num_bootstrap, seed=seed),
            float(tpr(optimize.brentq(lambda cut: fpr(cut) - TARGET, -9, 99))),
        ),
        "TPR carried": (rates.tpr, float(stats.norm.sf(thresholds - shift).mean())),
        "FPR carried": (rates.fpr, float(stats.norm.sf(thresholds).mean())),
        "ASR": (
            attack_success_rate_interval(score, is_member, num_bootstrap=100, seed=seed),
            float(0.5 + (tpr(cuts) - fpr(cuts)).max() / 2),
        ),
    }


def crossfit_rows(case: int, num_samples: int, num_simulations: int, num_bootstrap: int) -> list[str]:
    """A line of the table per way: coverage and mean width of each interval."""
    generator, found = np.random.default_rng([num_samples, case]), defaultdict(list)
    for index in range(num_simulations):
        drawn = Crosswise(generator, *CROSSFIT_CASES[case][1:], num_samples)
        for way in WAYS:
            for column, (estimate, truth) in crosswise_estimates(drawn, way, num_bootstrap, index).items():
                found[way, column].append((not estimate.leaves_out(truth), estimate.upper - estimate.lower))
    lines = []
    for way in WAYS:
        means = {column: np.mean(found[way, column], axis=0) for column in CROSSFIT_COLUMNS if (way, column) in found}
        cells = [f"{means[column][0]:.3f} ({means[column][1]:.3f})" if column in means else "" for column in COLUMNS]
        cells.append(f"{1 - means['Welch'][0]:.3f}")
        lines.append(f"| {num_samples:,} | {CROSSFIT_CASES[case][0]} | {way} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Prints the table, a row per size and distribution."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["plain", "crossfit"], default="plain")
    parser.add_argument("--num-simulations", type=int, default=1000)
    parser.add_argument("--num-bootstrap", type=int, default=400, help="of TPR@1%%FPR")
    parser.add_argument("--sizes", type=int, nargs="+", help="samples per side, of both halves together")
    options = parser.parse_args()
    torch.set_num_threads(1)
    start, is_plain = time.perf_counter(), options.part == "plain"
    heads = ["scores", "true AUROC", *COLUMNS] if is_plain else ["candidates", "reported by", *CROSSFIT_COLUMNS]
    print(f"| per side | {' | '.join(heads)} |")
    print("|" + "---|" * (1 + len(heads)))
    for num_samples in options.sizes or ([100, 417, 2500] if is_plain else [100, 400, 2000]):
        for case in range(len(CASES if is_plain else CROSSFIT_CASES)):
            if not is_plain:
                print("\n".join(crossfit_rows(case, num_samples, options.num_simulations, options.num_bootstrap)), flush=True)
                continue
            family, true_auroc = CASES[case]
            shares = coverage(Scores(family, true_auroc), num_samples, options.num_simulations, options.num_bootstrap, case)
            cells = " | ".join(f"{share:.3f}" for share in shares)
            print(f"| {num_samples:,} | {family} | {true_auroc} | {cells} |", flush=True)
    error = math.sqrt(0.95 * 0.05 / options.num_simulations)
    print(
        f"\nNominal 0.95. {options.num_simulations:,} simulations a row, {options.num_bootstrap} resamples for TPR: "
        f"standard error of a share {error:.3f}. {time.perf_counter() - start:.0f} s."
    )


if __name__ == "__main__":
    main()
