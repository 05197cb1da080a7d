"""Pictures to disk and to every logger that takes them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from lightning.pytorch.loggers import Logger
from matplotlib.figure import Figure


def save_picture(folder: Path, name: str, picture: np.ndarray | Figure) -> Path:
    """Write a figure or an array of pixels as `name`.png."""
    import matplotlib.image

    path = folder / f"{name}.png"
    if isinstance(picture, Figure):
        picture.savefig(path, dpi=110)
    else:
        # Pixels, not smooth blurs: small images are shown several times their size.
        scale = max(1, 512 // max(picture.shape[:2]))
        matplotlib.image.imsave(path, picture.repeat(scale, 0).repeat(scale, 1))
    return path


def log_picture(loggers: Sequence[Logger], name: str, picture: np.ndarray | Figure, *, epoch: int) -> None:
    """Give it as `pictures/<name>` to every logger that has a method `log_picture(name, picture, epoch)`."""
    for logger in loggers:
        if hasattr(logger, "log_picture"):
            logger.log_picture(f"pictures/{name}", picture, epoch)
