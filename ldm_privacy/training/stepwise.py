"""Training in which every step is a pure function of (seed, global step): batch, flips, noise, dropout.

Nothing random has a state, so a run that stops anywhere goes on exactly as if it had not stopped, and the data live on the
device: no data loader, no copies, no waiting in the step.
"""

from collections.abc import Iterator
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from ldm_privacy.randomness import derive_seed


class StepCounter:
    """What Lightning iterates over: step numbers 0 .. num_steps - 1 of an epoch.

    Stateless on purpose: Lightning asks a resumable loader for its state, and here there is none to lose.
    """

    def __init__(self, num_steps: int):
        self.num_steps = num_steps

    def __len__(self) -> int:
        return self.num_steps

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.num_steps))

    def state_dict(self) -> dict[str, Any]:
        """Empty: the global step says it all."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""


class StepwiseModule(LightningModule):
    """A LightningModule over samples that it holds itself.

    Subclasses implement `loss(indices) -> dict` with an entry "loss"; every entry is averaged over the epoch.

    Args:
        stage: "autoencoder" or "denoiser"; prefix of the series.
        num_samples: Samples per epoch.
        batch_size: Samples per step; the last batch of an epoch may be smaller.
        learning_rate, weight_decay: Of AdamW.
        seed: Of batches and all noise.
    """

    def __init__(self, *, stage: str, num_samples: int, batch_size: int, learning_rate: float, weight_decay: float, seed: int):
        super().__init__()
        self.stage = stage
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.seed = seed
        self.epoch_means: dict[str, float] = {}
        self._sums: dict[str, Tensor] = {}
        self._num_steps = 0
        self._order: tuple[int, Tensor] | None = None

    def loss(self, indices: Tensor) -> dict[str, Tensor]:
        """Losses of the samples at those places, 0 .. num_samples - 1; "loss" is the one that is minimised."""
        raise TypeError(f"{type(self).__name__} must implement loss()")

    def train_dataloader(self) -> StepCounter:
        return StepCounter(-(-self.num_samples // self.batch_size))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return torch.optim.AdamW(parameters, lr=self.learning_rate, weight_decay=self.weight_decay)

    def batch_indices(self, epoch: int, step: int) -> Tensor:
        """Places of the samples of one step: a permutation drawn from (seed, stage, epoch)."""
        if self._order is None or self._order[0] != epoch:
            generator = torch.Generator().manual_seed(derive_seed(f"{self.stage}-order", self.seed, epoch))
            self._order = (epoch, torch.randperm(self.num_samples, generator=generator).to(self.device))
        return self._order[1][step * self.batch_size : (step + 1) * self.batch_size]

    def on_train_epoch_start(self) -> None:
        self._sums, self._num_steps = {}, 0

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["epoch_sums"] = {"sums": self._sums, "num_steps": self._num_steps}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._sums = {name: value.to(self.device) for name, value in checkpoint["epoch_sums"]["sums"].items()}
        self._num_steps = checkpoint["epoch_sums"]["num_steps"]

    def training_step(self, step: int, batch_idx: int) -> Tensor:
        # batch_idx, not the loader's number: after a resume in mid-epoch the loader counts from 0 again.
        torch.manual_seed(derive_seed(f"{self.stage}-step", self.seed, self.current_epoch, batch_idx))
        losses = self.loss(self.batch_indices(self.current_epoch, batch_idx))
        for name, value in losses.items():
            self._sums[name] = self._sums[name] + value.detach() if name in self._sums else value.detach()
        self._num_steps += 1
        self.log("loss", losses["loss"].detach(), prog_bar=True, logger=False)
        return losses["loss"]

    def on_train_epoch_end(self) -> None:
        means = {name: float(value) / self._num_steps for name, value in self._sums.items()}
        self.epoch_means = {f"{self.stage}/train_{name}": value for name, value in means.items()}
        log_series(self.trainer, self.stage, self.current_epoch + 1, self.epoch_means)


def log_series(trainer: Trainer, stage: str, epoch: int, series: dict[str, float]) -> None:
    """Write series to every logger; `epoch` counts finished epochs of `stage`, 0 = before the first step."""
    axis = "epoch" if stage == "denoiser" else f"{stage}/epoch"
    for logger in trainer.loggers:
        logger.log_metrics({**series, axis: epoch})
