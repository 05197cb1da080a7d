"""metrics.csv as a Lightning logger."""

from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from ldm_privacy.registry import LOGGERS
from ldm_privacy.runs.series import SeriesFile

AXES = {"autoencoder/epoch": "autoencoder", "epoch": "denoiser"}


class TidyLogger(Logger):
    """Writes every series that comes with an epoch axis; see `SeriesFile`.

    Args:
        path: The CSV file.
    """

    name = "metrics"
    version = ""

    def __init__(self, path: Path):
        super().__init__()
        self.file = SeriesFile(path)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: config.yaml lies beside the file."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append every series of `metrics`, which must hold one of the epoch axes."""
        axis = next((axis for axis in AXES if axis in metrics), None)
        if axis is not None:
            series = {name: value for name, value in metrics.items() if name != axis}
            self.file.write(AXES[axis], int(metrics[axis]), series)


@LOGGERS.register("csv")
def tidy_logger(*, folder: Path) -> TidyLogger:
    """metrics.csv in the run's folder; every run has it."""
    return TidyLogger(folder / "metrics.csv")
