"""Exponential moving average of the weights, swapped in for audits and samples."""

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging


class AveragedWeights(WeightAveraging):
    """Lightning's WeightAveraging with decay min(decay, (1 + n) / (10 + n)) after n updates; the first copies the weights.

    The warm-up keeps short runs from averaging over their random start (Tan, Le 2019, 1905.11946, TensorFlow's form).
    There is an update after every optimizer step, so n is known from their number: torch's own `update_parameters` would
    read it from the device, and wait for it, three times in every step.

    Args:
        decay: In (0, 1).
    """

    def __init__(self, decay: float):
        super().__init__(use_buffers=False)
        self.decay = decay
        self._pairs: tuple[list[torch.Tensor], list[torch.Tensor]] | None = None

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step <= self._latest_update_step:
            return
        assert self._average_model is not None
        if self._pairs is None:  # walking through the modules takes longer than the update
            self._pairs = list(self._average_model.module.parameters()), list(pl_module.parameters())
        count = trainer.global_step - 1
        weight = 1 - min(self.decay, (1 + count) / (10 + count)) if count else 1.0
        torch._foreach_lerp_(*self._pairs, weight)
        for mean, value in zip(self._average_model.module.buffers(), pl_module.buffers()):
            mean.copy_(value)
        self._average_model.n_averaged += 1
        self._latest_update_step = trainer.global_step

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._pairs = None
