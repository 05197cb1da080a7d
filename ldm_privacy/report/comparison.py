"""A comparison of audits: terminal, comparison.json, comparison.html."""

from pathlib import Path

from rich.console import Console

from ldm_privacy.evidence.compare import Comparison
from ldm_privacy.evidence.verdict import Verdict
from ldm_privacy.metrics import holm
from ldm_privacy.report.figures.base import picture
from ldm_privacy.report.figures.over_audits import over_audits_figure
from ldm_privacy.report.metrics_file import write_json
from ldm_privacy.report.page.blocks import Answer, DataTable, Head, Section
from ldm_privacy.report.page.page import Page, write_page
from ldm_privacy.report.tables import digits, plain_table, short

NOTE = (
    "AUROCs are each audit's own; differences are paired on the samples that all audits report, each audit at the timesteps "
    "that its own halves chose for each other, and their intervals leave out the randomness of training. The standard "
    "deviation is over the audits compared: of runs that differ in their seed alone it is the randomness of training, without "
    "that of the samples, which they share."
)

DOUBT = (
    "Intervals leave out the randomness of training: two trainings of one setting differ too, and may differ as much. Each "
    "audit stands at the timesteps that its own halves chose."
)
ADVICE = (
    "Before a difference is called the setting's, compare several trainings of each, and at equal quality of what they "
    "generate: ldm-privacy sweep, ldm-privacy frontier."
)


def print_comparison(comparison: Comparison, console: Console) -> None:
    """AUROC of every audit, differences from the first, mean and standard deviation over audits."""
    console.print(f"Compared: {_legend(comparison)}", highlight=False, markup=False, soft_wrap=True)
    table = plain_table(f"AUROC, {comparison.num_shared} reported samples")
    columns, rows = _table(comparison)
    for place, column in enumerate(columns):
        table.add_column(column, no_wrap=place == 0, overflow="fold")  # of many audits every number is still shown
    for row in rows:
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
                **vars(key),
                "auroc": {name: report.row(key).metrics.auroc for name, report in comparison.reports.items()},
                "difference": {name: each[key] for name, each in comparison.differences.items()},
                "spread": comparison.spread[key],
            }
            for key in comparison.keys
        ],
        "curve": comparison.curve,
        "note": NOTE,
    }
    write_json(folder / "comparison.json", content)
    table = DataTable(*_table(comparison), "AUROC by attack and mask.", note=NOTE, is_open=True)
    drawn = picture(over_audits_figure(comparison), _curve_caption(comparison))
    sections = {"curve": Section("Over the audits", "", (drawn,)), "auroc": Section("AUROC", "", (table,))}
    title, subtitle = "Comparison of membership audits", f"{len(comparison.reports)} audits"
    write_page(Page(title, subtitle, _head(comparison), sections), folder / "comparison.html")


def _head(comparison: Comparison) -> Head:
    """The five answers."""
    asked = (
        "Whether attacks tell members from held-out images better in one audit than in another, each attack and mask by itself."
    )
    shared = f"{comparison.num_shared} images of one split that all of them report."
    return Head(
        Answer((asked,), ("auroc",)),
        Answer((f"{_legend(comparison)}.", shared)),
        Verdict(_sentences(comparison), "unclear", "Differences"),
        Answer((DOUBT,)),
        Answer((ADVICE,)),
    )


def _curve_caption(comparison: Comparison) -> str:
    """What the figure shows, in a sentence."""
    first, *_, last = comparison.reports
    ends = [f"{key} from {each[0].value:.3f} to {each[-1].value:.3f}" for key, each in comparison.curve.items()]
    return f"AUROC with its interval, from {first} to {last}, in the order in which they were named: {'; '.join(ends)}."


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


def _table(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Columns, which call the audits by their letters, and rows."""
    first, *others = _letters(comparison)
    columns = ["attack/mask", first, *others, *(f"{letter} - {first}" for letter in others), "mean, sd"]
    rows = [
        [
            str(key),
            *(short(report.row(key).metrics.auroc) for report in comparison.reports.values()),
            *(short(each[key], "+") for each in comparison.differences.values()),
            f"{digits(comparison.spread[key].mean)}, {digits(comparison.spread[key].deviation)}",
        ]
        for key in comparison.keys
    ]
    return columns, rows


def _legend(comparison: Comparison) -> str:
    return ", ".join(f"{letter} = {name}" for letter, name in zip(_letters(comparison), comparison.reports))


def _letters(comparison: Comparison) -> list[str]:
    return [chr(ord("A") + place) if place < 26 else str(place + 1) for place in range(len(comparison.reports))]
