"""exposed.csv: every audited member, the most exposed first."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ldm_privacy.evidence.gather import Evidence

COLUMNS = (
    *("rank", "sample_index", "file", "score", "fpr", "is_calibration"),
    *("onset_epoch", "onset_earliest", "onset_latest", "num_attacks", "found_by", "repeats"),
)


FilesOf = Callable[[Tensor], Sequence[str | None]]
"""Sample indices -> the file of each, as the data name it; None where they don't."""


def without_files(sample_index: Tensor) -> list[str | None]:
    """No file has a name."""
    return [None] * len(sample_index)


def write_exposed(evidence: Evidence, path: Path, *, files: FilesOf = without_files) -> None:
    """A line for each of `exposed_rows`; empty where nothing is known."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(exposed_rows(evidence, files=files))


def exposed_rows(evidence: Evidence, *, files: FilesOf = without_files) -> list[dict[str, Any]]:
    """What is known of every audited member, by `COLUMNS`, the most exposed first.

    `onset_epoch`, `onset_earliest` and `onset_latest` (see `ImageOnsets`) are None where there is none by this audit.
    `num_attacks` counts an attack and its calibrated forms once, `found_by` names each of them. `repeats`: how often the image
    comes in an epoch of the training, where some are planted as duplicates.
    """
    exposure, onsets, agreement = evidence.exposure, evidence.onsets, evidence.agreement
    places, nothing = torch.searchsorted(evidence.report.data.sample_index, exposure.sample_index), [None] * len(exposure.fpr)
    index = exposure.sample_index
    known = (each.tolist() for each in (exposure.score, exposure.fpr, exposure.is_calibration))
    columns: list[Sequence[Any]] = [range(1, len(places) + 1), index.tolist(), files(index), *known]
    if onsets is None:
        columns += [nothing] * 3
    else:
        columns += [list(map(onsets.time, each[places].tolist())) for each in (onsets.onset, onsets.earliest, onsets.latest)]
    if agreement is None:
        columns += [nothing] * 2
    else:
        columns += [agreement.num_attacks[places].tolist(), [";".join(names) for names in agreement.found_by(places)]]
    repeats = evidence.report.data.repeats
    columns.append(nothing if repeats is None else repeats[places].tolist())
    return [dict(zip(COLUMNS, row)) for row in zip(*columns)]
