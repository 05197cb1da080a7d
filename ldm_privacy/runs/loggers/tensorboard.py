"""TensorBoard, by Lightning's own class."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure

from ldm_privacy.errors import UserError
from ldm_privacy.registry import LOGGERS

if find_spec("tensorboard") is None:  # whoever names the logger learns it before anything is trained
    raise UserError("'tensorboard' needs TensorBoard: pip install 'ldm-privacy[tensorboard]'.")


class PictureLogger(TensorBoardLogger):
    """Lightning's, with pictures."""

    def log_picture(self, name: str, picture: np.ndarray | Figure, epoch: int) -> None:
        """Log it at that epoch."""
        if isinstance(picture, Figure):
            self.experiment.add_figure(name, picture, epoch, close=False)
        else:
            self.experiment.add_image(name, picture, epoch, dataformats="HWC")


@LOGGERS.register("tensorboard")
def tensorboard_logger(*, folder: Path) -> PictureLogger:
    """Event files for `tensorboard --logdir runs/<name>/tensorboard`."""
    return PictureLogger(folder, name="tensorboard", version="", default_hp_metric=False)
