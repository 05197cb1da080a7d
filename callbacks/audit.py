"""Audits in training: before the first step, every n epochs, and after the last."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from ldm_privacy.audit import Audit, AuditNews, AuditReport
from ldm_privacy.audit.collected import Collected, join
from ldm_privacy.errors import UserError
from ldm_privacy.metrics import auroc_difference
from ldm_privacy.onset import OnsetDetector, Rise
from ldm_privacy.training.denoiser import DenoiserModule, finished_epochs
from ldm_privacy.training.processes import gather_on_main, on_main
from ldm_privacy.training.stepwise import log_series
from ldm_privacy.types import AuditBatch, AuditKey


class MemorizationAudit(Callback):
    """Drives an `Audit` through the validation loop, whose batches come with the averaged weights swapped in.

    Each process audits its share of the samples. The scores and the report of all are in the main one alone: the others need
    no memory for them, and learn `AuditNews`.

    Args:
        audit: The library object.
        every_n_epochs: Audits at epochs 0, n, 2n, ... and at the last.
        onset: Counts from the audit of the untrained denoiser.
        onset_key: Attack and mask of the onset.
        on_report: Called with (report, epoch) after each audit, in the main process.
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
        """Of the newest audit; the main process's."""
        self.news: AuditNews | None = None
        """Of the newest audit."""
        self.rise: Rise | None = None
        self.audited_epoch = -1
        self.best: dict[str, tuple[float, int]] = {}
        self._baseline: tuple[Tensor, Tensor] | None = None

    def is_before_onset(self) -> bool:
        """Whether the newest audit lies before any rise of the AUROC that is certain."""
        return self.rise is None or (self.rise.onset_epoch is None and self.rise.lower <= 0)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._schedule(trainer)  # a run that goes on in mid-epoch has no start of that epoch

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._schedule(trainer)

    def _schedule(self, trainer: Trainer) -> None:
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
        self.audit.update(cast(DenoiserModule, pl_module).predictor, batch)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epoch = finished_epochs(cast(DenoiserModule, pl_module))
        shards = gather_on_main(self.audit.collected())
        self.news = on_main(lambda: self._conclude(trainer, epoch, shards))
        self.rise = self.news.rise
        self.audited_epoch = epoch

    def _conclude(self, trainer: Trainer, epoch: int, shards: Sequence[Collected]) -> AuditNews:
        """The main process's part: report, rise, series."""
        self.report = report = self.audit.compute(join(shards))
        series = report.series()
        rise = None
        scores = report.reported_scores(self.onset_key)
        index = report.data.sample_index[report.is_reporting]
        if self._baseline is None:
            self._baseline = (index, scores)
        else:
            rise = self._look(epoch, index, scores, report)
            prefix = f"memorization/{self.onset_key}/rise"
            series |= {prefix: rise.value, f"{prefix}_lower": rise.lower}
            if rise.onset_epoch is not None:
                series[f"memorization/{self.onset_key}/onset_epoch"] = float(rise.onset_epoch)
        for row in report.rows:
            best = self.best.get(str(row.key))
            if best is None or row.metrics.auroc.value > best[0]:
                self.best[str(row.key)] = (row.metrics.auroc.value, epoch)
        log_series(trainer, "denoiser", epoch, series)
        self.on_report(report, epoch)
        return AuditNews(report.row(self.onset_key).metrics.auroc, len(report.reported_membership), rise)

    def _look(self, epoch: int, index: Tensor, scores: Tensor, report: AuditReport) -> Rise:
        """The paired rise on the samples that both audits have; a resumed run may audit others than it began with."""
        assert self._baseline is not None
        before_index, before = self._baseline
        here, there = torch.isin(index, before_index), torch.isin(before_index, index)
        group = None if report.reported_group is None else report.reported_group[here]
        paired = partial(
            auroc_difference,
            scores[here],
            before[there],
            report.reported_membership[here],
            alternative="greater",
            group=group,
        )
        return self.onset.look(epoch, lambda confidence: paired(confidence=confidence))

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
            "onset_key": str(self.onset_key),
            "baseline": None if self._baseline is None else list(self._baseline),
            "best": {key: list(value) for key, value in self.best.items()},
            "audited_epoch": self.audited_epoch,
            "rise": None if self.rise is None else asdict(self.rise),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.onset.load_state_dict(state_dict["onset"])
        if state_dict["onset_key"] != str(self.onset_key):
            raise UserError(
                f"audit.onset: this run counts its onset by {state_dict['onset_key']} since its first audit; it can't be "
                f"changed to {self.onset_key} half-way."
            )
        baseline = state_dict["baseline"]
        self._baseline = None if baseline is None else (baseline[0], baseline[1])
        self.best = {key: (value[0], value[1]) for key, value in state_dict["best"].items()}
        self.audited_epoch = state_dict["audited_epoch"]
        self.rise = None if state_dict["rise"] is None else Rise(**state_dict["rise"])
