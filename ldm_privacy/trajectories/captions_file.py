"""captions.csv: every caption whose trajectories were followed, the one that replicates most first."""

import csv
from pathlib import Path
from typing import Any

from ldm_privacy.trajectories.record import TrajectoryReport

COLUMNS = (
    *("caption", "sample_index", "group", "guidance_scale", "d1", "d2", "k", "gap", "error"),
    *("similarity", "replicated", "other_duplicate", "nearest_member", "nearest_similarity", "num_members"),
)


def write_captions(report: TrajectoryReport, path: Path) -> None:
    """A line for each of `caption_rows`; the caption is empty where there are no words."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(caption_rows(report))


def caption_rows(report: TrajectoryReport) -> list[dict[str, Any]]:
    """What is known of every caption at the largest guidance scale, by `COLUMNS`, by similarity.

    `replicated` is the share of its seeds whose nearest audited member is an image of that caption, `other_duplicate` a planted
    duplicate of another one; `nearest_member` and its similarity are of the seed that comes nearest to any; `num_members` is
    how many audited members have the caption.
    """
    scale, guided = report.top, report.guided[report.top]
    best = guided.nearest_similarity.argmax(1, keepdim=True)
    words = [""] * len(report.group) if report.words is None else report.words
    values = (
        guided.d1,
        guided.d2,
        guided.gain,
        guided.gap,
        guided.error,
        guided.similarity,
        guided.replicated,
        guided.took_duplicate,
    )
    columns = [
        *(words, report.sample_index.tolist(), report.group, [scale] * len(report.group)),
        *(value.tolist() for value in values),
        guided.nearest.gather(1, best)[:, 0].tolist(),
        guided.nearest_similarity.gather(1, best)[:, 0].tolist(),
        report.num_members.tolist(),
    ]
    order = guided.similarity.argsort(descending=True, stable=True).tolist()
    rows = [dict(zip(COLUMNS, row)) for row in zip(*columns)]
    return [rows[place] for place in order]
