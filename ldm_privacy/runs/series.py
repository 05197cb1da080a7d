"""metrics.csv: every curve of a run, tidy, and the authority on it."""

import csv
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

COLUMNS = ("stage", "epoch", "series", "value")
STAGES = ("autoencoder", "denoiser")


class SeriesFile:
    """`stage,epoch,series,value` rows, a row per number, flushed at once.

    Args:
        path: The CSV file; made where it isn't there, rows are appended.
    """

    def __init__(self, path: Path):
        self.path = path

    def write(self, stage: str, epoch: int, series: Mapping[str, float]) -> None:
        """Append a row for each of `series`; numbers survive exactly."""
        is_new = not self.path.exists()
        with self.path.open("a", newline="") as file:
            writer = csv.writer(file)
            if is_new:
                writer.writerow(COLUMNS)
            writer.writerows((stage, epoch, name, repr(float(value))) for name, value in series.items())

    def read(self, stage: str) -> dict[tuple[int, str], float]:
        """All rows of a stage: (epoch, series) -> value; none where there is no file."""
        return {(int(row["epoch"]), row["series"]): float(row["value"]) for row in self._rows() if row["stage"] == stage}

    def rows(self) -> Iterator[tuple[str, int, dict[str, float]]]:
        """What was written, in that order: stage, epoch, series of each `write`, as far as the file tells them apart."""
        stage, epoch, series = "", -1, dict[str, float]()
        for row in self._rows():
            here = row["stage"], int(row["epoch"])
            if series and (here != (stage, epoch) or row["series"] in series):
                yield stage, epoch, series
                series = {}
            (stage, epoch), series[row["series"]] = here, float(row["value"])
        if series:
            yield stage, epoch, series

    def cut_back(self, stage: str, epoch: int) -> None:
        """Drop the rows of `stage` after `epoch`, and of stages after it: what a resumed run will write again."""
        if not self.path.exists():
            return
        end = (STAGES.index(stage), epoch)
        rows = [row for row in self._rows() if (STAGES.index(row["stage"]), int(row["epoch"])) <= end]
        temporary = self.path.with_suffix(".tmp")
        with temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
        os.replace(temporary, self.path)

    def _rows(self) -> Iterable[dict[str, str]]:
        if not self.path.exists():
            return []
        # A kill may cut the last row short, in a number or a letter; it is of an epoch that is written again.
        lines = self.path.read_bytes().split(b"\n")[:-1]
        return csv.DictReader(line.decode() for line in lines)
