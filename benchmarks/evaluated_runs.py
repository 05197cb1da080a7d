"""Evaluated runs side by side, as in docs/results/cifar10.md: leaks by autoencoder and seed, and what the mask gains.

python benchmarks/evaluated_runs.py runs/ae-*/evaluation-2          # the folders that evaluate.py wrote
"""

import json
import statistics
import sys
from pathlib import Path

from ldm_privacy.runs.series import SeriesFile

ATTACKS = ("sima", "loss", "pia", "secmi", "dime", "combined")
RIVALS = ("all", "random60", "std60")


def number(estimate: dict, *, signed: bool = False) -> str:
    value = f"{estimate['value']:+.3f}" if signed else f"{estimate['value']:.3f}"
    return f"{value} [{estimate['lower']:.3f}, {estimate['upper']:.3f}]"


def table(columns: list[str], rows: list[list[str]]) -> None:
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print()


def mean(values: list[float]) -> str:
    return f"{statistics.mean(values):+.3f} (sd {statistics.stdev(values):.3f})" if len(values) > 1 else f"{values[0]:+.3f}"


def main() -> None:
    runs = [(Path(name).parent, json.loads((Path(name) / "metrics.json").read_text())) for name in sys.argv[1:]]
    rows_of = [{(row["attack"], row["mask"]): row for row in content["rows"]} for _, content in runs]
    attacks = [attack for attack in ATTACKS if (attack, "all") in rows_of[0]]

    leaks = []
    for (folder, content), rows in zip(runs, rows_of):
        untrained = SeriesFile(folder / "metrics.csv").read("denoiser")[0, "memorization/sima/all/auroc"]
        leaks.append(
            [
                content["config"]["autoencoder"]["train_on"],
                str(content["config"].get("seed", 0)),
                number(content["controls"]["reconstruction error"]["auroc"]),
                f"{untrained:.3f}",
                number(rows["sima", "all"]["auroc"]),
                number(rows["pia", "all"]["auroc"]),
            ]
        )
    table(["autoencoder trained on", "seed", "reconstruction error", "SimA, untrained denoiser", "SimA", "PIA"], leaks)

    gains = []
    for (_, content), rows in zip(runs, rows_of):
        claim = rows["sima", "top60"]["gains"]
        where = [content["config"]["autoencoder"]["train_on"], str(content["config"].get("seed", 0))]
        gains.append([*where, *(number(claim[rival], signed=True) for rival in RIVALS)])
    for attack in attacks:
        claims = [rows[attack, "top60"]["gains"] for rows in rows_of]
        gains.append([f"mean of {attack}", "", *(mean([claim[rival]["value"] for claim in claims]) for rival in RIVALS)])
    table(["autoencoder trained on", "seed", *(f"SimA, top60 over {rival}" for rival in RIVALS)], gains)


if __name__ == "__main__":
    main()
