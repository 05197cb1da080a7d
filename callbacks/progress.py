"""Progress on the terminal."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from rich.console import Console

from ldm_privacy.training.stepwise import StepwiseModule
from ldm_privacy.types import Done


class ProgressBar(RichProgressBar):
    """Lightning's rich bar with this program's words, and lines that can be printed above it.

    Where the output is no terminal the bar stays out of the trainer, and `say` prints all the same.

    Args:
        stage: "autoencoder" or "denoiser".
        console: Where the bar and the lines go.
    """

    def __init__(self, stage: str, console: Console):
        super().__init__(refresh_rate=1, leave=False, console_kwargs={"file": console.file})
        self.stage = stage
        self._plain = console

    def say(self, line: str) -> None:
        """Print a line, above the bar while there is one."""
        console = self.progress.console if self.progress is not None else self._plain
        console.print(line, highlight=False, soft_wrap=True)

    @contextmanager
    def during_look(self, description: str, total: int) -> Iterator[Done]:
        """A bar of its own, below the training's, while its context lasts; a `Progress`."""
        bar = self.progress
        if bar is None or not self.is_enabled:
            yield lambda done, total=None: None
            return
        task = bar.add_task(description, total=max(total, 1))

        def update(done: int, total: int | None = None) -> None:
            bar.update(task, completed=done, total=total)
            self.refresh()

        try:
            yield update
        finally:
            bar.remove_task(task)

    def _get_train_description(self, current_epoch: int) -> str:
        return f"Training the {self.stage}, epoch {current_epoch + 1}/{self.trainer.max_epochs}"

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        items = super().get_metrics(trainer, pl_module)
        items.pop("v_num", None)
        if isinstance(pl_module, StepwiseModule) and pl_module.shown_loss is not None:
            items["loss"] = pl_module.shown_loss
        return items


class ProgressLines(Callback):
    """How far a training is, in place of a bar where the output is no terminal: a line every so often.

    Args:
        bar: Its words; it stays out of the trainer.
        seconds: From one line to the next, and to the first.
        clock: Gives seconds.
    """

    def __init__(self, bar: ProgressBar, *, seconds: float = 30.0, clock: Callable[[], float] = time.monotonic):
        self.bar, self.seconds, self.clock = bar, seconds, clock
        self._told = clock()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._told = self.clock()

    def on_train_batch_end(self, trainer: Trainer, *details: Any) -> None:
        if (now := self.clock()) - self._told >= self.seconds:
            self._told = now
            self.bar.say(f"Training the {self.bar.stage}, epoch {trainer.current_epoch + 1}/{trainer.max_epochs} ...")


def in_lines(callback: Callback) -> Callback:
    """The callback, or lines in place of a bar."""
    return ProgressLines(callback) if isinstance(callback, ProgressBar) else callback
