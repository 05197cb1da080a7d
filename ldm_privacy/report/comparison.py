"""A comparison of audits: terminal, comparison.json, comparison.html."""

import json
from dataclasses import asdict
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from ldm_privacy.evidence.compare import Comparison
from ldm_privacy.metrics import holm
from ldm_privacy.report.page.blocks import DataTable, Section, Verdict
from ldm_privacy.report.page.page import Page, write_page
from ldm_privacy.report.tables import digits, short, signed

NOTE = (
    "AUROCs are each audit's own; differences are paired on the samples that all audits report, each audit at the timestep "
    "that its own calibration half chose, and their intervals leave out the randomness of training. The standard deviation is "
    "over the audits compared: of runs that differ in their seed alone it is the randomness of training, without that of the "
    "samples, which they share."
)


def print_comparison(comparison: Comparison, console: Console) -> None:
    """AUROC of every audit, differences from the first, mean and standard deviation over audits."""
    names = list(comparison.reports)
    compared = "Compared: " + ", ".join(f"{letter} = {name}" for letter, name in zip(_letters(names), names))
    console.print(compared, highlight=False, markup=False, soft_wrap=True)
    table = Table(
        title=f"AUROC, {comparison.num_shared} reported samples", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    for place, column in enumerate(_columns(comparison, short_names=True)):
        table.add_column(column, no_wrap=place == 0, overflow="fold")  # of many audits every number is still shown
    for row in _rows(comparison):
        table.add_row(*row)
    console.print(table)
    console.print(NOTE, highlight=False)


def write_comparison(comparison: Comparison, folder: Path) -> None:
    """comparison.json and comparison.html in that folder."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "audits": list(comparison.reports),
        "num_shared": comparison.num_shared,
        "rows": [
            {
                "attack": key.attack,
                "mask": key.mask,
                "auroc": {name: asdict(report.row(key).metrics.auroc) for name, report in comparison.reports.items()},
                "difference": {name: asdict(each[key]) for name, each in comparison.differences.items()},
                "spread": asdict(comparison.spread[key]),
            }
            for key in comparison.keys
        ],
        "note": NOTE,
    }
    (folder / "comparison.json").write_text(json.dumps(content, indent=2) + "\n")
    columns = _columns(comparison, short_names=False)
    table = DataTable(
        tuple(columns), tuple(_rows(comparison)), "AUROC by attack and mask.", numeric=range(1, len(columns)), note=NOTE
    )
    names = list(comparison.reports)
    page = Page(
        "Comparison of membership audits",
        ", ".join(names),
        Verdict(_sentences(comparison), "unclear", label="Comparison"),
        (Section("auroc", "AUROC", "", (table,)),),
    )
    write_page(page, folder / "comparison.html")


def _sentences(comparison: Comparison) -> tuple[str, ...]:
    first = next(iter(comparison.reports))
    sentences = [f"{len(comparison.reports)} audits of one split, compared on {comparison.num_shared} samples."]
    for name, differences in comparison.differences.items():
        level = 1 - comparison.reports[name].confidence
        apart = sum(p_value <= level for p_value in holm([each.p_value for each in differences.values()]))
        sentences.append(
            f"{name} differs from {first} in {apart} of {len(differences)} attacks and masks, all tested together (Holm); "
            "another training of either may differ as much."
        )
    return tuple(sentences[:3])


def _columns(comparison: Comparison, *, short_names: bool) -> list[str]:
    names = list(comparison.reports)
    shown = _letters(names) if short_names else names
    return ["attack/mask", *shown, *(f"{name} - {shown[0]}" for name in shown[1:]), "mean, sd"]


def _rows(comparison: Comparison) -> list[tuple[str, ...]]:
    return [
        (
            str(key),
            *(short(report.row(key).metrics.auroc) for report in comparison.reports.values()),
            *(signed(each[key]) for each in comparison.differences.values()),
            ", ".join(digits(value) for value in (comparison.spread[key].mean, comparison.spread[key].deviation)),
        )
        for key in comparison.keys
    ]


def _letters(names: list[str]) -> list[str]:
    return [chr(ord("A") + place) if place < 26 else str(place + 1) for place in range(len(names))]
