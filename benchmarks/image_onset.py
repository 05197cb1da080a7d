"""False alarms of image onsets, and how often their uncertainty holds: simulated trainings.

    python -m benchmarks.image_onset [--num-trainings 200] [--num-audits 20] [--seed 0]

Standings are normal and correlated from audit to audit (autoregressive). Blind: members are as held-out images. Watching: each
member rises by three standard deviations at an audit of its own. The true onset is that with the bar where it really is, at the
95 % quantile of the normal.
"""

import argparse
import math
import time

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy import stats
from torch import Tensor

from ldm_privacy.evidence.image_onset import NUM_CONSECUTIVE, first_held, image_onsets

SHARE = 0.95


def standings(generator: np.random.Generator, num_audits: int, num_images: int, memory: float) -> Tensor:
    """(audits, images) standard normal, autoregressive over the audits."""
    rows = [generator.normal(size=num_images)]
    for _ in range(num_audits - 1):
        rows.append(memory * rows[-1] + math.sqrt(1 - memory**2) * generator.normal(size=num_images))
    return torch.from_numpy(np.stack(rows))


def main() -> None:
    """Simulates and prints the shares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-trainings", type=int, default=200)
    parser.add_argument("--num-audits", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    start, bar = time.perf_counter(), float(stats.norm.isf(1 - SHARE))
    columns = (
        "held-out per half",
        "memory",
        "members",
        "held-out",
        "independent",
        "at most",
        "true onset within, blind",
        "watching",
    )
    table = Table(
        *columns, title=f"Images with an onset by the last of {options.num_audits} audits; {options.num_trainings} trainings"
    )
    for num_heldout in (64, 200, 1000):
        for memory in (0.0, 0.9, 0.99):
            generator = np.random.default_rng([options.seed, num_heldout])
            place = torch.arange(4 * num_heldout)
            is_member, half = place % 4 < 2, place % 2 == 0
            found = []
            for _ in range(options.num_trainings):
                blind = standings(generator, options.num_audits, len(place), memory)
                at = torch.from_numpy(generator.integers(0, 2 * options.num_audits, len(place)))
                rises = is_member & (at <= torch.arange(options.num_audits)[:, None])
                onsets = image_onsets(range(options.num_audits), blind, is_member, half, share=SHARE)
                row = [float((onsets.onset < options.num_audits)[side].double().mean()) for side in (is_member, ~is_member)]
                for standing in (blind, blind + 3.0 * rises):
                    onsets = image_onsets(range(options.num_audits), standing, is_member, half, share=SHARE)
                    truth = first_held(standing > bar, NUM_CONSECUTIVE)
                    row.append(float(((onsets.earliest <= truth) & (truth <= onsets.latest))[is_member].double().mean()))
                found.append(row)
            members, heldout, *within = np.mean(found, 0)
            shares = (members, heldout, *onsets.false_alarms, *within)
            table.add_row(str(num_heldout), str(memory), *(f"{share:.3f}" for share in shares))
    console = Console(width=130)
    console.print(table)
    console.print(f"{time.perf_counter() - start:.0f} s.")


if __name__ == "__main__":
    main()
