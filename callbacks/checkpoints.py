"""Checkpoints at audits, by time, at the end and on Ctrl-C."""

import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from ldm_privacy.errors import UserError
from ldm_privacy.processes import gather, world_size
from ldm_privacy.runs.checkpoint import save_checkpoint
from ldm_privacy.targets.record import RECORD
from ldm_privacy.training.stepwise import LOOK_EVERY_N_STEPS


class Interrupted(Exception):
    """The user stopped the run; a checkpoint is stored."""


@dataclass(eq=False, repr=False)
class RunCheckpoint(Checkpoint):
    """Keeps one newest checkpoint, and other names for those of its audits that are worth keeping.

    A `Checkpoint` in Lightning's sense, so its hooks come after every other callback's. On the first Ctrl-C (or SIGTERM)
    the step or audit in hand is finished, a checkpoint is stored and `Interrupted` is raised; a second Ctrl-C stops at
    once. Several processes stop together, within `LOOK_EVERY_N_STEPS` steps.

    Args:
        path: The checkpoint file.
        record: Stored in every checkpoint beside Lightning's own state.
        every_n_minutes: Also when so many minutes have passed since the last one, by the main process's clock, looked at
            every `LOOK_EVERY_N_STEPS` steps and at the end of an epoch.
        is_due: epoch -> whether the end of that epoch gets a checkpoint in any case.
        copies: Other name -> whether the checkpoint of the newest audit gets it, in place of the one that had it.
        say: Prints a line.
    """

    path: Path
    record: dict[str, Any]
    _: KW_ONLY
    every_n_minutes: float
    is_due: Callable[[int], bool]
    say: Callable[[str], None]
    copies: Mapping[Path, Callable[[], bool]] | None = None
    _saved_at: float = field(default_factory=time.monotonic, init=False)
    _stop: bool = field(default=False, init=False)
    _handlers: dict[int, Any] = field(default_factory=dict, init=False)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[RECORD] = self.record

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # Between here and the first step Lightning sets a SIGTERM handler of its own, and takes it back before `teardown`.
        self._handlers[signal.SIGTERM] = signal.getsignal(signal.SIGTERM)
        self._handlers[signal.SIGINT] = signal.signal(signal.SIGINT, self._request_stop)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        signal.signal(signal.SIGTERM, self._request_stop)
        if trainer.global_step == 0:
            self._save(trainer, audited=True)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx + 1 == trainer.num_training_batches:
            return  # the audit and the end of the epoch come first
        stop, late = self._asked(batch_idx)
        if stop or late:
            self._save(trainer, audited=False)
        if stop:
            raise Interrupted

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        due = self.is_due(trainer.current_epoch + 1)
        stop, late = self._asked(0)
        if due or stop or late:
            self._save(trainer, audited=due)
        if stop:
            raise Interrupted

    def _asked(self, batch_idx: int) -> tuple[bool, bool]:
        """Whether any process was asked to stop, and whether a checkpoint is late: the same in all processes.

        Several look for it in the same few steps only. A single one stops after any.
        """
        if batch_idx % LOOK_EVERY_N_STEPS:
            return world_size() == 1 and self._stop, False
        asked = gather((self._stop, time.monotonic() - self._saved_at > 60 * self.every_n_minutes))
        return any(stop for stop, _ in asked), asked[0][1]

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    def _save(self, trainer: Trainer, *, audited: bool) -> None:
        if not all(bool(parameter.isfinite().all()) for parameter in trainer.lightning_module.parameters()):
            raise UserError(
                f"a weight is not finite after step {trainer.global_step}: lower the learning rate. "
                f"The last good checkpoint is {self.path}."
            )
        wanted = [copy for copy, is_wanted in (self.copies or {}).items() if audited and is_wanted()]
        save_checkpoint(trainer, self.path, copies=wanted)
        self._saved_at = time.monotonic()

    def _request_stop(self, number: int, frame: Any) -> None:
        if self._stop:
            raise KeyboardInterrupt
        self._stop = True
        self.say("Stopping: finishing the step or audit in hand and storing a checkpoint (Ctrl-C again stops at once).")
