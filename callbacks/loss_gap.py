"""The denoising loss of members and of held-out samples, and the onset of the gap between them."""

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from ldm_privacy.onset import OnsetDetector, Rise, loss_gap_rise
from ldm_privacy.training.denoiser import DenoiserModule, finished_epochs
from ldm_privacy.training.processes import gather
from ldm_privacy.training.stepwise import log_series
from ldm_privacy.types import AuditBatch, Estimate


class LossGap(Callback):
    """Logs the means of the validation loop's per-sample losses, and counts the gap's onset from the untrained denoiser.

    No network passes of its own. A run whose untrained denoiser it has not seen gets no onset.

    Args:
        onset: The detector.
        groups: (samples,) sample indices -> group numbers, or None.
    """

    def __init__(self, onset: OnsetDetector, groups: Callable[[Tensor], Tensor | None] = lambda sample_index: None):
        self.onset = onset
        self.groups = groups
        self.rise: Rise | None = None
        self.heldout_loss = float("nan")
        """Mean over the held-out samples of the newest audit."""
        self._parts: list[tuple[Tensor, Tensor, Tensor]] = []
        self._baseline: tuple[Tensor, Tensor] | None = None

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._parts = []

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: AuditBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._parts.append((batch.sample_index, batch.is_member, outputs))  # on the device until the end: a copy waits for it

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epoch = finished_epochs(cast(DenoiserModule, pl_module))
        mine = [torch.cat(each).cpu() for each in zip(*self._parts)]
        index, is_member, loss = (torch.cat(each) for each in zip(*gather(mine)))
        order = index.argsort()
        index, is_member, loss = index[order], is_member[order], loss[order].double()
        members, self.heldout_loss = float(loss[is_member].mean()), float(loss[~is_member].mean())
        series = {
            "denoiser/loss_members": members,
            "denoiser/loss_heldout": self.heldout_loss,
            "denoiser/loss_gap": self.heldout_loss - members,
        }
        if epoch == 0:
            self._baseline = (index, loss)
        elif self._baseline is not None:
            self.rise = self.onset.look(epoch, self._rise(self._baseline, index, is_member, loss))
            series |= {"denoiser/loss_gap_rise": self.rise.value, "denoiser/loss_gap_rise_lower": self.rise.lower}
            if self.rise.onset_epoch is not None:
                series["denoiser/loss_gap_onset_epoch"] = float(self.rise.onset_epoch)
        log_series(trainer, "denoiser", epoch, series)

    def _rise(
        self, baseline: tuple[Tensor, Tensor], index: Tensor, is_member: Tensor, loss: Tensor
    ) -> Callable[[float], Estimate]:
        """Confidence -> rise, over the samples that both audits have; a resumed run may audit others than it began with."""
        here, there = torch.isin(index, baseline[0]), torch.isin(baseline[0], index)
        group = self.groups(index[here])
        paired = partial(loss_gap_rise, loss[here], baseline[1][there], is_member[here], group=group)
        return lambda confidence: paired(confidence=confidence)

    def summary(self) -> dict[str, Any]:
        """For the run summary."""
        return {"onset_epoch_loss_gap": self.onset.onset_epoch}

    def state_dict(self) -> dict[str, Any]:
        return {
            "onset": self.onset.state_dict(),
            "baseline": None if self._baseline is None else list(self._baseline),
            "heldout_loss": self.heldout_loss,
            "rise": None if self.rise is None else asdict(self.rise),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.onset.load_state_dict(state_dict["onset"])
        baseline = state_dict["baseline"]
        self._baseline = None if baseline is None else (baseline[0], baseline[1])
        self.heldout_loss = state_dict["heldout_loss"]
        self.rise = None if state_dict["rise"] is None else Rise(**state_dict["rise"])
