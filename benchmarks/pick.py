"""How often a checkpoint is named whose truth is at the limit or above, and how good the named one is.

    python -m benchmarks.pick [--num-trainings 1000] [--limit 0.6] [--num-samples 250] [--seed 0]

Trainings of ten checkpoints whose audits share their samples: normal scores, members shifted, noise correlated by .8 from one
audit to the next. Three ways to name one are compared: in order up to the first that does not pass (`ldm-privacy pick`), the
last one that passes wherever it stands, the same with Bonferroni over the checkpoints. Beside them what is left of the level
where the only candidate is kept by scores: `before-onset.ckpt`, the newest audit without a certain rise.
"""

import argparse
import math
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy import special, stats

from ldm_privacy.evidence.gate import Ruling
from ldm_privacy.evidence.limits.limit import Judgement, decide
from ldm_privacy.evidence.pick import Candidate, Pick
from ldm_privacy.metrics import auroc_difference, auroc_interval
from ldm_privacy.types import Estimate

NUM = 10
CORRELATION = 0.8


def curves(most: float) -> dict[str, np.ndarray]:
    """True AUROCs of the checkpoints."""
    rise, step = np.arange(NUM) / (NUM - 1), np.arange(NUM) >= NUM // 2
    return {
        "at the limit throughout": np.full(NUM, most),
        "rising to .75": 0.5 + 0.25 * rise,
        "rising late": 0.5 + 0.4 * rise**4,
        "half .5, half at it": np.where(step, most, 0.5),
        "at it, then half .5": np.where(step, 0.5, most),
    }


def scores(generator: np.random.Generator, truth: np.ndarray, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(checkpoints, samples) scores of one training's audits, and who is a member; `size` a side."""
    labels = np.arange(2 * size) < size
    noise = generator.normal(size=(NUM, 2 * size))
    for place in range(1, NUM):
        noise[place] = CORRELATION * noise[place - 1] + math.sqrt(1 - CORRELATION**2) * noise[place]
    return torch.from_numpy(noise + (math.sqrt(2) * stats.norm.ppf(truth))[:, None] * labels), torch.from_numpy(labels)


def candidate(place: int, area: Estimate, most: float) -> Candidate:
    """A checkpoint with one limit."""
    decision = decide(area, most)
    return Candidate(str(place), place, area, Ruling((Judgement("gate.auroc", "AUROC", most, decision, "", None),)))


def in_order(areas: Sequence[Estimate], most: float) -> int | None:
    """What `ldm-privacy pick` names."""
    named = Pick([candidate(place, area, most) for place, area in enumerate(areas)], 0.95).named
    return None if named is None else named.epoch


def last_passing(areas: Sequence[Estimate], most: float) -> int | None:
    """The last one whose upper bound is at most the limit."""
    return max((place for place, area in enumerate(areas) if decide(area, most) == "pass"), default=None)


def bonferroni(areas: Sequence[Estimate], most: float) -> int | None:
    """The same with wider intervals: on the logit scale, as DeLong's are here."""
    times = stats.norm.isf(0.025 / NUM) / stats.norm.isf(0.025)
    wider = []
    for area in areas:
        middle, upper = special.logit(area.value), special.logit(area.upper)
        wider.append(Estimate(area.value, 0.0, float(special.expit(middle + times * (upper - middle)))))
    return last_passing(wider, most)


def before_onset(score: torch.Tensor, labels: torch.Tensor) -> int:
    """The newest audit whose rise over the first is not certain; looks are paid for as the detector does."""
    kept = 0
    for place in range(1, NUM):
        confidence = 1 - 2 * 0.05 * 6 / (math.pi * place) ** 2
        if auroc_difference(score[place], score[0], labels, confidence=confidence).lower > 0:
            break
        kept = place
    return kept


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--num-trainings", type=int, default=1000)
    parser.add_argument("--limit", type=float, default=0.6)
    parser.add_argument("--num-samples", type=int, default=250)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    generator, started, most = np.random.default_rng(options.seed), time.monotonic(), options.limit
    rules: dict[str, Callable[[Sequence[Estimate], float], int | None]] = {
        "in order": in_order,
        "last that passes": last_passing,
        "last, Bonferroni": bonferroni,
    }
    size = f"{options.num_samples} + {options.num_samples}"
    table = Table("true AUROC", "named by", "unsafe", "none", "last safe one", title=f"limit {most:g}, {size} samples")
    for name, truth in curves(most).items():
        safe = [place for place in range(NUM) if truth[place] < most]
        named: dict[str, list[int | None]] = {each: [] for each in (*rules, "kept by scores")}
        for _ in range(options.num_trainings):
            score, labels = scores(generator, truth, options.num_samples)
            areas = [auroc_interval(each, labels) for each in score]
            for label, rule in rules.items():
                named[label].append(rule(areas, most))
            kept = before_onset(score, labels)
            named["kept by scores"].append(kept if decide(areas[kept], most) == "pass" else None)
        for label, found in named.items():
            unsafe = sum(each is not None and truth[each] >= most for each in found)
            shares = (unsafe, found.count(None), found.count(safe[-1]) if safe else 0)
            table.add_row(name, label, *(f"{each / len(found):.3f}" for each in shares))
    Console().print(table)
    print(f"{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
