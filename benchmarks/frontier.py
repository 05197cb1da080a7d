"""How often the frontier claims something of settings that are the same: python -m benchmarks.frontier [--sweeps 200].

Made-up sweeps of two equal settings, paired by sample within a seed: a score is part the sample's own, part the training's; the
attack's strength grows from audit to audit, and differs between trainings by `spread`; qualities err by .02.
"""

import argparse

import numpy as np
import torch

from ldm_privacy.audit.kept import KeptScores
from ldm_privacy.audit.samples import is_calibration
from ldm_privacy.evidence.cell import Cell
from ldm_privacy.evidence.frontier import frontier_of
from ldm_privacy.evidence.strongest import strongest
from ldm_privacy.evidence.trainings import Point, Training
from ldm_privacy.types import AuditKey, Estimate, Intervals

KEY = AuditKey("sima", "all")
STRENGTHS, QUALITIES, ERROR = (0.0, 0.3, 0.6, 1.0), (1.0, 0.3, 0.1, 0.05), 0.02
CELLS = {label: Cell(label, baseline=label == "one") for label in ("one", "other")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sweeps", type=int, default=200)
    parser.add_argument("--generator", type=int, default=0, help="seed of what is made up")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=64, help="a side")
    options = parser.parse_args()
    print("candidates  spread  claimed  samples alone  trainings alone  dominated")
    for candidates, spread in ((1, 0.0), (12, 0.0), (1, 0.15), (12, 0.15)):
        generator, counts = torch.Generator().manual_seed(options.generator), np.zeros(4)
        for _ in range(options.sweeps):
            counts += simulated(candidates, spread, options.seeds, options.samples, generator)
        shares = counts / options.sweeps
        print(f"{candidates:>10}  {spread:>6}" + "".join(f"  {share:.3f}" for share in shares), flush=True)


def simulated(candidates: int, spread: float, seeds: int, samples: int, generator: torch.Generator) -> list[bool]:
    """Whether a sweep of equal settings is said to differ: as a page says it, over samples and over trainings; dominated."""
    index, trainings = torch.arange(2 * samples), {label: list[Training]() for label in CELLS}
    half, intervals = is_calibration(index), Intervals(num_bootstrap=1000)
    first = int(torch.randint(2**31, (), generator=generator))  # or all sweeps would have the same resamples
    for seed in range(first, first + seeds):
        is_member = torch.randperm(2 * samples, generator=generator) < samples
        own = torch.randn(candidates, 2 * samples, generator=generator)
        for mine in trainings.values():
            shift, points = spread * float(torch.randn((), generator=generator)), []
            for epoch, (strength, level) in enumerate(zip(STRENGTHS, QUALITIES)):
                noise = torch.randn(candidates, 2 * samples, generator=generator)
                score = 0.75**0.5 * own + 0.5 * noise + max(0.0, strength + shift) * (epoch > 0) * is_member
                kept = KeptScores(index, {"sima": list(range(candidates))}, {KEY: score[None]}, {})
                quality = level + ERROR * float(torch.randn((), generator=generator))
                reach = 1.959964 * ERROR
                attack = strongest(kept, is_member, half, intervals=intervals)
                points.append(Point(epoch, attack, Estimate(quality, quality - reach, quality + reach)))
            mine.append(Training(seed, str(seed), points, is_member))
    found = frontier_of(CELLS, trainings, "quality", intervals=intervals)
    gap = found.compared["other"].auroc
    alone = gap.trainings is not None and gap.trainings.leaves_out(0.0)
    return [gap.is_certain, gap.samples.leaves_out(0.0), alone, bool(found.dominated)]


if __name__ == "__main__":
    main()
