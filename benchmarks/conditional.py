"""What evaluations of conditional runs found: conditions, planted duplicates, trajectories and the paper's claims.

    python -m benchmarks.conditional runs/digits_classes runs/digits_captions runs/emoji

Reads each run's `evaluation/metrics.json`; tables in Markdown. No network passes.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ATTACKS = ("sima", "sima_null", "sima_shuffled", "loss", "loss_null", "loss_shuffled", "clid")
GROUPS = {"repeated": "planted duplicates", "members": "members", "heldout": "held-out"}
MEANS = {
    "similarity": ("similarity", ".2f"),
    "own nearest": ("replicated", ".0%"),
    "D1": ("d1", "+.2f"),
    "D2": ("d2", "+.2f"),
    "k": ("k", ".2f"),
    "error": ("error", ".1f"),
    "gap": ("gap", ".3f"),
    "mean gap": ("gap_mean", ".3f"),
}
"""Column -> name in metrics.json, and its form."""


def table(first: str, rows: Mapping[str, Mapping[str, str]]) -> str:
    """Row -> column -> text, in Markdown; a row that lacks a column has an empty cell."""
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    cells = [[name, *(row.get(column, "") for column in columns)] for name, row in rows.items()]
    lines = [[first, *columns], ["---"] * (1 + len(columns)), *cells]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def shown(estimate: Mapping[str, float]) -> str:
    """A value with its interval."""
    return f"{estimate['value']:.3f} [{estimate['lower']:.2f}, {estimate['upper']:.2f}]"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    found = {run.name: json.loads((run / "evaluation" / "metrics.json").read_text()) for run in parser.parse_args().runs}
    audits: dict[str, dict[str, str]] = {}
    means: dict[str, dict[str, str]] = {}
    """By run, guidance and group."""
    claims: dict[str, dict[str, str]] = {}
    for run, metrics in found.items():
        rows: dict[str, Any] = {row["attack"]: row for row in metrics["rows"] if row["mask"] == "all"}
        for attack in ATTACKS:
            if attack in rows:
                audits.setdefault(attack, {})[run] = shown(rows[attack]["auroc"])
                for group, area in rows[attack]["by_repeats"].items():
                    audits.setdefault(f"{attack}, {group} members", {})[run] = shown(area)
        series = metrics["series"]
        if (use := series.get("memorization/condition_use")) is not None:
            audits.setdefault("use of the condition", {})[run] = f"{use:.1%}"
        trajectories = metrics["watched"].get("trajectories")
        if trajectories is None:
            continue
        for group, by_scale in trajectories["means"].items():
            for scale, values in by_scale.items():
                label = f"{run}, {float(scale):g}, {GROUPS[group]}"
                means[label] = {title: f"{values[name]:{form}}" for title, (name, form) in MEANS.items()}
        for claim in trajectories["claims"]:
            label = f"{claim['kind']} of {claim['quantity']}, guidance {claim['guidance_scale']:g}"
            claims.setdefault(label, {})[run] = shown(claim["estimate"])
    for title, rows in (("AUROC", audits), ("run, guidance, captions of", means), ("claim", dict(sorted(claims.items())))):
        print(table(title, rows), end="\n\n")


if __name__ == "__main__":
    main()
