"""frontier.csv: every number of a frontier, tidy."""

import csv
from collections.abc import Iterator
from pathlib import Path

from ldm_privacy.evidence.frontier import Frontier
from ldm_privacy.evidence.over_seeds import OverSeeds
from ldm_privacy.types import Estimate

COLUMNS = ("cell", "seed", "epoch", "series", "value", "lower", "upper")

Row = tuple[str, int | str, int | str, str, Estimate]


def write_frontier_csv(frontier: Frontier, path: Path) -> None:
    """A row per number: a training's at an audit have seed and epoch, its differences a seed, means over seeds neither.

    Series: `auroc` and `tpr_at_1fpr` of the strongest attack, the quality under its own name; `auroc_at_equal_quality` and
    `best_quality`, minus the baseline's. The bounds of a training's numbers are over its samples, those of means the wider of
    over samples and over trainings.
    """
    temporary = path.with_suffix(".csv.tmp")
    with temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for *where, estimate in _rows(frontier):
            writer.writerow([*where, *(repr(float(each)) for each in (estimate.value, estimate.lower, estimate.upper))])
    temporary.replace(path)


def _rows(frontier: Frontier) -> Iterator[Row]:
    for label, trainings in frontier.trainings.items():
        for seed, training in trainings.items():
            for point in training.points:
                numbers = {"auroc": point.attack.auroc, "tpr_at_1fpr": point.attack.tpr, frontier.quality: point.quality}
                for series, estimate in numbers.items():
                    yield label, seed, point.epoch, series, estimate
        means = {"auroc": frontier.auroc.get(label), frontier.quality: frontier.final_quality.get(label)}
        for series, over in means.items():
            if over is not None:
                yield label, "", "", series, over.mean
        if (compared := frontier.compared.get(label)) is not None:
            yield from _differences(label, "auroc_at_equal_quality", compared.auroc)
            yield from _differences(label, "best_quality", compared.best)


def _differences(label: str, series: str, over: OverSeeds) -> Iterator[Row]:
    for seed, estimate in over.by_seed.items():
        yield label, seed, "", series, estimate
    yield label, "", "", series, over.mean
