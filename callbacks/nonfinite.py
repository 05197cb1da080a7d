"""Stop at a loss that is not finite, before a checkpoint can hold it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from ldm_privacy.errors import UserError

EVERY = 20
"""Steps between looks: a look waits for the device. The end of an epoch is always looked at."""


@dataclass(eq=False, repr=False)
class StopOnNonFiniteLoss(Callback):
    """Raises UserError where a loss is NaN or infinite.

    Args:
        last_checkpoint: Named in the message: the last good one.
        learning_rate_key: The key to lower, as the message names it.
    """

    last_checkpoint: Path
    learning_rate_key: str

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        look = batch_idx % EVERY == 0 or batch_idx + 1 == trainer.num_training_batches
        if look and not bool(torch.isfinite(outputs["loss"])):
            is_there = self.last_checkpoint.exists()
            kept = f"The last good checkpoint is {self.last_checkpoint}." if is_there else "There is no checkpoint yet."
            raise UserError(
                f"loss is {float(outputs['loss'])} in epoch {trainer.current_epoch + 1}, step {trainer.global_step}: "
                f"lower {self.learning_rate_key}. {kept}"
            )
