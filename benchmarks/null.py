"""Null calibration: how often the procedure, everything chosen and fitted in it, claims something where labels mean nothing.

    python -m benchmarks.null runs/digits [--permutations 200] [--masks] [--seed 0]

Labels of a run's last audit are permuted within each half (whole groups where there are groups). Each time all of it is done
again: the choice of timestep, and each calibration (complexity, history, both, combined over attacks) fitted anew, with the
run's kept scores for its earlier audits. Each row's AUROC and its 95 % interval are compared with .5, where the calibration
half chooses and the other alone reports, and cross-fitted; beside them is what the best timestep on the reported samples claims
(the oracle). No denoiser passes; images are read for their complexity. `--masks`: all masks, not the unmasked attacks alone.
"""

import argparse
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.kept_run import kept_looks, keys_of
from ldm_privacy.audit.sweep import choose, reported_halves
from ldm_privacy.metrics import clopper_pearson, crossfit_auroc
from ldm_privacy.types import AuditKey


def main() -> None:
    """Permutes, repeats, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--permutations", type=int, default=200)
    parser.add_argument("--masks", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    start = time.perf_counter()
    looks = kept_looks(options.run)
    keys, last = keys_of(looks, masks=options.masks), max(looks.kept)
    outside: dict[AuditKey, list[int]] = {key: [0, 0] for key in keys}
    claimed: dict[tuple[AuditKey, int], list[float]] = defaultdict(list)
    oracle: dict[AuditKey, list[float]] = defaultdict(list)
    labels = looks.permuted(options.permutations, options.seed)
    for is_member in track(labels, "Permutations", transient=True):
        data = looks.at(last, is_member)
        for key in keys:
            for num_folds in (1, 2):
                mine = {1.0: data.scores[key][:num_folds]}
                seen = replace(data, scores={key: mine[1.0]})
                choice = choose(mine, seen)
                area = crossfit_auroc(reported_halves(mine, choice, seen, num_fitted=data.num_fitted.get(key, 0)))
                outside[key][num_folds - 1] += area.leaves_out(0.5)
                claimed[key, num_folds].append(area.value)
            oracle[key].append(choice.oracle_auroc)

    table = Table(
        *("attack/mask", "mean AUROC", "cross-fitted", "oracle", "one half", "cross-fitted"),
        title=f"Intervals that leave out .5: {options.permutations} permutations, {len(looks.kept)} audits to epoch {last}",
    )
    for key in keys:
        means = (claimed[key, 1], claimed[key, 2], oracle[key])
        shares = [clopper_pearson(count, options.permutations) for count in outside[key]]
        table.add_row(str(key), *(f"{sum(each) / len(each):.3f}" for each in means), *map(str, shares))
    table.add_section()
    totals = [sum(each) / (options.permutations * len(keys)) for each in zip(*outside.values())]
    table.add_row("all", "", "", "", *(f"{total:.3f}" for total in totals))
    console = Console(width=128)
    console.print(table)
    console.print(f"{time.perf_counter() - start:.0f} s.")


if __name__ == "__main__":
    main()
