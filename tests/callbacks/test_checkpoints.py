"""Checkpoints: a stop after any step changes nothing, a kill goes on from the newest, each copy is the audit that it names."""

import math
import signal
from itertools import count
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from ldm_privacy.callbacks.checkpoints import Interrupted, RunCheckpoint
from ldm_privacy.errors import UserError
from ldm_privacy.training.stepwise import LOOK_EVERY_N_STEPS, StepwiseModule
from tests.disk import Disk


class Regression(StepwiseModule):
    """A line fitted to noise, with dropout, so that every random draw of a step shows in the weights."""

    def __init__(self):
        super().__init__(stage="denoiser", num_samples=20, batch_size=4, learning_rate=0.01, weight_decay=0.0, seed=3)
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(5, 1)
        self.inputs = torch.randn(20, 5)

    def loss(self, indices):
        inputs = torch.nn.functional.dropout(self.inputs[indices], 0.2)
        return {"loss": (self.layer(inputs) - torch.randn(len(indices), 1)).square().mean()}


class StopAt(Callback):
    """Asks for a stop as Ctrl-C does, after a number of steps."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step:
            checkpoint = next(each for each in trainer.callbacks if isinstance(each, RunCheckpoint))
            checkpoint._request_stop(2, None)


def fit(path, *callbacks, resume=None, is_due=lambda epoch: True, copies=None):
    module = Regression()
    checkpoint = RunCheckpoint(path, {}, every_n_minutes=60, is_due=is_due, say=lambda line: None, copies=copies)
    trainer = Trainer(
        max_epochs=3,
        accelerator="cpu",
        callbacks=[*callbacks, checkpoint],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(module, ckpt_path=resume, weights_only=True)
    return module


@pytest.mark.parametrize("step", [0, 2, 4, 7, 13])
def test_a_stop_after_any_step_changes_nothing(tmp_path, step):
    whole = fit(tmp_path / "whole.ckpt")
    with pytest.raises(Interrupted):
        fit(tmp_path / "stopped.ckpt", StopAt(step))
    again = fit(tmp_path / "stopped.ckpt", resume=tmp_path / "stopped.ckpt")
    assert again.global_step == whole.global_step == 15
    assert torch.equal(again.layer.weight, whole.layer.weight)
    assert torch.equal(again.layer.bias, whole.layer.bias)


class Killed(Exception):
    """A kill -9 as far as the files are concerned: nothing more is stored."""


class KillAt(Callback):
    """Ends the training before a step."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step:
            raise Killed


def test_what_a_process_does_after_a_training_can_be_stopped(tmp_path):
    def handlers():
        return {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    before = handlers()
    fit(tmp_path / "a.ckpt")
    assert handlers() == before


@pytest.fixture
def hours():
    """A clock that is two hours later at every look, in the place of the module `time`."""
    hour = count(0, 7200)
    return SimpleNamespace(monotonic=lambda: next(hour))


@pytest.mark.parametrize(("step", "stored"), [(1, 1), (3, 3), (4, 3), (8, 8), (9, 8), (14, 13)])
def test_a_kill_in_mid_epoch_goes_on_from_the_checkpoint_by_time(tmp_path, monkeypatch, hours, step, stored):
    monkeypatch.setattr("ldm_privacy.callbacks.checkpoints.LOOK_EVERY_N_STEPS", 2)
    monkeypatch.setattr("ldm_privacy.callbacks.checkpoints.time", hours)
    path, copy = tmp_path / "killed.ckpt", tmp_path / "copy.ckpt"
    copies = {copy: lambda: True}
    whole = fit(tmp_path / "whole.ckpt")
    with pytest.raises(Killed):
        fit(path, KillAt(step), is_due=lambda epoch: epoch == 2, copies=copies)
    assert torch.load(path, weights_only=True)["global_step"] == stored
    # The audits of this run are before its first step and at the end of epoch 2; nothing else gets another name.
    assert torch.load(copy, weights_only=True)["global_step"] == (10 if step > 10 else 0)
    again = fit(path, resume=path)
    assert again.global_step == whole.global_step == 15
    assert torch.equal(again.layer.weight, whole.layer.weight)
    assert torch.equal(again.layer.bias, whole.layer.bias)
    assert again.epoch_means == whole.epoch_means


def test_processes_agree_on_stops_and_on_the_clock_of_the_main_one(tmp_path, monkeypatch):
    checkpoint = RunCheckpoint(tmp_path / "last.ckpt", {}, every_n_minutes=60, is_due=lambda epoch: True, say=print)
    others, told = [], []

    def gather(mine):
        told.append(mine)
        return [*others, mine]

    monkeypatch.setattr("ldm_privacy.callbacks.checkpoints.gather", gather)
    monkeypatch.setattr("ldm_privacy.callbacks.checkpoints.world_size", lambda: 2)
    for main, asked in (((False, True), (False, True)), ((True, False), (True, False)), ((False, False), (False, False))):
        others[:] = [main]
        assert checkpoint._asked(LOOK_EVERY_N_STEPS) == asked
    checkpoint._saved_at = -math.inf  # this process's own clock counts for nothing
    assert checkpoint._asked(0) == (False, False)
    checkpoint._request_stop(2, None)
    assert checkpoint._asked(0) == (True, False)
    assert told[-1] == (True, True)
    assert checkpoint._asked(LOOK_EVERY_N_STEPS + 1) == (False, False)
    assert len(told) == 5, "a message between looks would find nobody"


def test_every_epoch_sees_every_sample_once_in_its_own_order():
    module = Regression()
    epochs = [torch.cat([module.batch_indices(epoch, step) for step in range(5)]) for epoch in (0, 1)]
    for order in epochs:
        assert order.sort().values.tolist() == list(range(20))
    assert not torch.equal(*epochs)


def test_weights_that_are_not_finite_are_not_stored(tmp_path):
    class Poison(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                with torch.no_grad():
                    pl_module.layer.weight[0, 0] = float("inf")

    with pytest.raises(UserError, match="a weight is not finite after step 10"):
        fit(tmp_path / "last.ckpt", Poison())
    stored = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert stored["state_dict"]["layer.weight"].isfinite().all()


def test_each_copy_is_the_newest_checkpoint_that_its_rule_wanted(tmp_path):
    disk, wanted = Disk(), {"a": False, "b": False}
    copies = {tmp_path / name: (lambda name=name: wanted[name]) for name in wanted}
    checkpoint = RunCheckpoint(
        tmp_path / "last", {}, every_n_minutes=60, is_due=lambda epoch: epoch != 4, say=print, copies=copies
    )
    for epoch, names in enumerate(("a", "ab", "", "ab", "b"), start=1):
        disk.content, disk.current_epoch = f"epoch {epoch}".encode(), epoch - 1
        wanted.update({name: name in names for name in wanted})
        checkpoint.on_train_epoch_end(disk, None)
    # Epoch 4 was not audited, so nothing is known of it and no copy is made.
    assert (tmp_path / "last").read_bytes() == b"epoch 5"
    assert (tmp_path / "a").read_bytes() == b"epoch 2"
    assert (tmp_path / "b").read_bytes() == b"epoch 5"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "last"]
