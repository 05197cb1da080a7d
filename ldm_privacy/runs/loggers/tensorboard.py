"""TensorBoard, by Lightning's own class."""

from pathlib import Path

from lightning.pytorch.loggers import Logger

from ldm_privacy.errors import UserError
from ldm_privacy.registry import LOGGERS


@LOGGERS.register("tensorboard")
def tensorboard_logger(*, folder: Path) -> Logger:
    """Event files in `tensorboard/` of the run's folder: `tensorboard --logdir runs/<name>/tensorboard`.

    Raises:
        UserError: TensorBoard is not installed.
    """
    from lightning.pytorch.loggers import TensorBoardLogger

    try:
        return TensorBoardLogger(folder, name="tensorboard", version="", default_hp_metric=False)
    except ModuleNotFoundError:
        raise UserError("loggers: 'tensorboard' needs TensorBoard: pip install 'ldm-privacy[tensorboard]'.") from None
