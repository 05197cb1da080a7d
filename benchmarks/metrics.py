"""Time and memory of the metrics at full size: 25,000 + 25,000 scores x 30 timesteps x 6 masks.

    python benchmarks/metrics.py [--num-samples 25000] [--num-timesteps 30] [--num-masks 6] [--num-threads 2]

The AUROC of every (mask, timestep), then all metrics with intervals (1,000 resamples each, two target FPRs) for the one
reported timestep of each mask, the paired difference of each mask to the first, and 200 label permutations of the reported
rows. The scores are synthetic; nothing but their number matters.
"""

import argparse
import resource
import sys
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from ldm_privacy.metrics import auroc, auroc_difference, membership_metrics, null_band, permuted_auroc


def peak_mebibytes() -> float:
    """Largest resident size of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def main() -> None:
    """Runs the parts one after the other and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-samples", type=int, default=25_000, help="per side")
    parser.add_argument("--num-timesteps", type=int, default=30)
    parser.add_argument("--num-masks", type=int, default=6)
    parser.add_argument("--num-threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.num_threads)

    generator = torch.Generator().manual_seed(0)
    is_member = torch.arange(2 * options.num_samples) < options.num_samples
    shape = (options.num_masks, options.num_timesteps, 2 * options.num_samples)
    score = torch.randn(shape, generator=generator) + is_member
    reported = score[:, 0]
    before = peak_mebibytes()

    parts: dict[str, Callable[[], object]] = {
        f"AUROC, {options.num_masks * options.num_timesteps} rows": lambda: auroc(score, is_member),
        f"all metrics with intervals, {options.num_masks} reported": lambda: intervals(reported, is_member),
        f"paired differences, {options.num_masks - 1}": lambda: differences(reported, is_member),
        f"null bands of 200 permutations, {options.num_masks} reported": lambda: null_bands(reported, is_member),
    }
    table = Table("part", "seconds", title=f"{options.num_samples:,} + {options.num_samples:,} scores")
    total = 0.0
    for name, part in parts.items():
        start = time.perf_counter()
        part()
        elapsed = time.perf_counter() - start
        total += elapsed
        table.add_row(name, f"{elapsed:.2f}")
    table.add_row("together", f"{total:.2f}")
    console = Console()
    console.print(table)
    console.print(f"peak memory {peak_mebibytes():.0f} MiB ({before:.0f} MiB before, of it the scores and the libraries)")


def intervals(reported: Tensor, is_member: Tensor) -> None:
    """All metrics of each row."""
    for row in reported:
        membership_metrics(row, is_member)


def differences(reported: Tensor, is_member: Tensor) -> None:
    """Each row against the first."""
    for row in reported[1:]:
        auroc_difference(row, reported[0], is_member)


def null_bands(reported: Tensor, is_member: Tensor) -> None:
    """Permuted AUROCs of all rows at once, and the band of each."""
    for value, permuted in zip(auroc(reported, is_member), permuted_auroc(reported, is_member)):
        null_band(float(value), permuted)


if __name__ == "__main__":
    main()
