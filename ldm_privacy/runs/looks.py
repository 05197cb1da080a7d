"""What watchers saw, to every logger."""

from collections.abc import Mapping, Sequence

from lightning.pytorch.loggers import Logger


def log_look(
    loggers: Sequence[Logger], series: Mapping[str, float], charts: Mapping[str, str], *, epoch: float, step: int
) -> None:
    """Give it to `log_look(series, charts, epoch, step)` of the loggers that have it, and all series to the others.

    Args:
        loggers, series: What goes where.
        charts: Chart -> series, the few that a person watches; see `Look`.
        epoch: Finished epochs, and how far the next one is; the others get whole ones.
        step: Finished steps.
    """
    for logger in loggers:
        if hasattr(logger, "log_look"):
            logger.log_look(series, charts, epoch=epoch, step=step)
        else:
            logger.log_metrics({**series, "epoch": int(epoch)}, step=step)
