"""Audits in training: before the first step, every n epochs, and after the last."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from ldm_privacy.audit import Audit, AuditReport
from ldm_privacy.onset import OnsetDetector, Rise
from ldm_privacy.training.denoiser import finished_epochs
from ldm_privacy.training.stepwise import log_series
from ldm_privacy.types import AuditBatch, AuditKey


class MemorizationAudit(Callback):
    """Drives an `Audit` through the validation loop, whose batches come with the averaged weights swapped in.

    Args:
        audit: The library object.
        every_n_epochs: Audits at epochs 0, n, 2n, ... and at the last.
        onset: Counts from the audit of the untrained denoiser.
        onset_key: Attack and mask of the onset.
        on_report: Called with (report, epoch) after each audit.
    """

    def __init__(
        self,
        audit: Audit,
        every_n_epochs: int,
        onset: OnsetDetector,
        onset_key: AuditKey,
        on_report: Callable[[AuditReport, int], None],
    ):
        self.audit = audit
        self.every_n_epochs = every_n_epochs
        self.onset = onset
        self.onset_key = onset_key
        self.on_report = on_report
        self.report: AuditReport | None = None
        self.rise: Rise | None = None
        self.audited_epoch = -1
        self.best: dict[str, tuple[float, int]] = {}
        self._baseline: Tensor | None = None

    def is_before_onset(self) -> bool:
        """Whether the newest audit lies before any rise of the AUROC that is certain."""
        return self.onset.onset_epoch is None and (self.rise is None or self.rise.lower <= 0)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        due = epoch % self.every_n_epochs == 0 or epoch == trainer.max_epochs
        # Lightning validates where (epoch % check_val_every_n_epoch) is 0 and knows no "and after the last".
        trainer.check_val_every_n_epoch = 1 if due else epoch + 1

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.audit.reset()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: AuditBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.audit.update(pl_module.predictor, batch)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epoch = finished_epochs(pl_module)
        self.report = report = self.audit.compute()
        self.audited_epoch = epoch
        series = report.series()
        scores = report.reported_scores(self.onset_key)
        if self._baseline is None:
            self._baseline = scores
        elif len(self._baseline) == len(scores):  # a resumed run may audit other samples; then there is no pairing
            self.rise = self.onset.update_scores(
                epoch, scores, self._baseline, report.reported_membership, group=report.reported_group
            )
            prefix = f"memorization/{self.onset_key}/rise"
            series |= {prefix: self.rise.value, f"{prefix}_lower": self.rise.lower}
        for row in report.rows:
            best = self.best.get(str(row.key))
            if best is None or row.metrics.auroc.value > best[0]:
                self.best[str(row.key)] = (row.metrics.auroc.value, epoch)
        log_series(trainer, "denoiser", epoch, series)
        self.on_report(report, epoch)

    def summary(self) -> dict[str, Any]:
        """Best and last AUROC of every attack and mask, and the onset epoch: the run summary."""
        values: dict[str, Any] = {"onset_epoch": self.onset.onset_epoch}
        for row in self.report.rows if self.report is not None else []:
            best, epoch = self.best[str(row.key)]
            values |= {
                f"best/{row.key}/auroc": best,
                f"best/{row.key}/epoch": epoch,
                f"last/{row.key}/auroc": row.metrics.auroc.value,
            }
        return values

    def state_dict(self) -> dict[str, Any]:
        return {
            "onset": self.onset.state_dict(),
            "baseline": self._baseline,
            "best": {key: list(value) for key, value in self.best.items()},
            "audited_epoch": self.audited_epoch,
            "rise": None if self.rise is None else asdict(self.rise),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.onset.load_state_dict(state_dict["onset"])
        baseline = state_dict["baseline"]
        self._baseline = None if baseline is None else torch.as_tensor(baseline)
        self.best = {key: (value[0], value[1]) for key, value in state_dict["best"].items()}
        self.audited_epoch = state_dict["audited_epoch"]
        self.rise = None if state_dict["rise"] is None else Rise(**state_dict["rise"])
