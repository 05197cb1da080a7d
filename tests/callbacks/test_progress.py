"""How far a training is, where no bar can be shown."""

import io
from types import SimpleNamespace

from lightning.pytorch import Trainer
from rich.console import Console

from ldm_privacy.callbacks.nonfinite import StopOnNonFiniteLoss
from ldm_privacy.callbacks.progress import ProgressBar, ProgressLines, in_lines


def test_a_line_comes_every_so_often_and_none_at_first():
    now, said = iter([0, 0, 29, 30, 31, 59, 75, 80, 105]), io.StringIO()
    lines = ProgressLines(ProgressBar("denoiser", Console(file=said)), seconds=30, clock=lambda: next(now))
    lines.on_train_start(None, None)
    for step in range(7):
        lines.on_train_batch_end(SimpleNamespace(current_epoch=step, max_epochs=9), None, None, None, step)
    assert said.getvalue().splitlines() == [f"Training the denoiser, epoch {epoch}/9 ..." for epoch in (2, 5, 7)]


def test_lines_take_the_place_of_a_bar_alone():
    bar = ProgressBar("autoencoder", Console(file=io.StringIO()))
    assert isinstance(in_lines(bar), ProgressLines)
    assert in_lines(bar).bar is bar
    other = StopOnNonFiniteLoss.__new__(StopOnNonFiniteLoss)
    assert in_lines(other) is other
    Trainer(callbacks=[in_lines(bar)], logger=False, enable_progress_bar=False, accelerator="cpu")
