"""Exponential moving average of the weights, swapped in for audits and samples."""

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging

from ldm_privacy.training.averaging import update_average


class AveragedWeights(WeightAveraging):
    """Lightning's WeightAveraging with the warm-up of `ldm_privacy.training.averaging`.

    There is an update after every optimizer step, so n is known from their number: torch's own `update_parameters` would
    read it from the device, and wait for it, three times in every step.

    Args:
        decay: In (0, 1).
    """

    def __init__(self, decay: float):
        super().__init__(use_buffers=False)
        self.decay = decay
        self._pairs: tuple[list[torch.Tensor], list[torch.Tensor]] | None = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step <= self._latest_update_step:
            return
        assert self._average_model is not None
        if self._pairs is None:  # walking through the modules takes longer than the update
            self._pairs = list(self._average_model.module.parameters()), list(pl_module.parameters())
        update_average(*self._pairs, num_updates=trainer.global_step - 1, decay=self.decay)
        for mean, value in zip(self._average_model.module.buffers(), pl_module.buffers()):
            mean.copy_(value)
        self._average_model.n_averaged += 1
        self._latest_update_step = trainer.global_step

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._pairs = None
