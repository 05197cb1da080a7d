"""Null calibration: how often the procedure, choice of timestep included, claims something where labels mean nothing.

python benchmarks/null.py runs/digits/evaluation/scores.parquet [permutations]

Labels of a real audit are permuted within each half; each time the timestep is chosen on the calibration half and the AUROC's
interval on the reporting half is compared with .5, as is the best timestep on the reporting half (the oracle).
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from ldm_privacy.audit.score_file import read_scores
from ldm_privacy.audit.sweep import choose
from ldm_privacy.metrics import auroc, auroc_interval, clopper_pearson, permuted_labels


def main() -> None:
    data = read_scores(Path(sys.argv[1])).data
    num_permutations = int(sys.argv[2]) if len(sys.argv) > 2 else 200
    halves = (data.is_calibration, ~data.is_calibration)
    labels = [permuted_labels(data.is_member[half], num_permutations=num_permutations, seed=n) for n, half in enumerate(halves)]
    reporting = halves[1]
    outside = dict.fromkeys(data.scores, 0)
    claimed: dict = {key: [] for key in data.scores}
    oracle: dict = {key: [] for key in data.scores}
    for number in track(range(num_permutations), "Permutations", transient=True):
        is_member = torch.empty_like(data.is_member)
        for half, label in zip(halves, labels):
            is_member[half] = label[number]
        permuted = replace(data, is_member=is_member)
        for key, score in permuted.scores.items():
            chosen = score[choose({1.0: score}, permuted).place, reporting]
            interval = auroc_interval(chosen, is_member[reporting])
            outside[key] += not interval.lower <= 0.5 <= interval.upper
            claimed[key].append(interval.value)
            oracle[key].append(float(auroc(score[:, reporting], is_member[reporting]).max()))
    table = Table("attack/mask", "mean AUROC", "mean oracle", "95% intervals that leave out .5")
    for key, count in outside.items():
        share = clopper_pearson(count, num_permutations)
        means = [f"{sum(values) / num_permutations:.3f}" for values in (claimed[key], oracle[key])]
        table.add_row(str(key), *means, f"{share.value:.3f} [{share.lower:.3f}, {share.upper:.3f}]")
    total = clopper_pearson(sum(outside.values()), num_permutations * len(outside))
    table.add_section()
    table.add_row("all", "", "", f"{total.value:.3f}")
    Console().print(table)


if __name__ == "__main__":
    main()
