"""Stops in the middle of an epoch, losses that are not finite, disks that are full."""

import math
from itertools import count
from types import SimpleNamespace

import pytest
import torch
from ldm_privacy.training.checkpoint import epochs_in, keep_copy, load_checkpoint, save_checkpoint
from lightning.pytorch import Callback, Trainer

import train
from callbacks.checkpoints import Interrupted, RunCheckpoint
from ldm_privacy.errors import UserError
from ldm_privacy.training.stepwise import LOOK_EVERY_N_STEPS, StepwiseModule
from tests.tiny import arguments, series


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


@pytest.fixture
def hours():
    """A clock that is two hours later at every look, in the place of the module `time`."""
    hour = count(0, 7200)
    return SimpleNamespace(monotonic=lambda: next(hour))


@pytest.mark.parametrize(("step", "stored"), [(1, 1), (3, 3), (4, 3), (8, 8), (9, 8), (14, 13)])
def test_a_kill_in_mid_epoch_goes_on_from_the_checkpoint_by_time(tmp_path, monkeypatch, hours, step, stored):
    monkeypatch.setattr("callbacks.checkpoints.LOOK_EVERY_N_STEPS", 2)
    monkeypatch.setattr("callbacks.checkpoints.time", hours)
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

    monkeypatch.setattr("callbacks.checkpoints.gather", gather)
    monkeypatch.setattr("callbacks.checkpoints.world_size", lambda: 2)
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


def test_a_run_that_is_killed_in_mid_epoch_goes_on_to_the_same_curves(tmp_path, monkeypatch, hours):
    from ldm_privacy.training.denoiser import DenoiserModule

    monkeypatch.setattr("ldm_privacy.publish.evidence_figures", lambda *arguments: {})
    short = ["audit.attacks=[sima]", "audit.masks=[all]", "geometry.distortion_rank=0", "autoencoder.max_epochs=0"]
    short += ["denoiser.batch_size=1", "denoiser.ema_decay=0.99", "trainer.max_epochs=2"]
    assert train.main(arguments(tmp_path, *short, "name=whole")) == 0
    original = DenoiserModule.loss

    def killed(self, indices):
        if self.global_step == 65:
            raise Killed
        return original(self, indices)

    with monkeypatch.context() as patch:
        patch.setattr("callbacks.checkpoints.time", hours)
        patch.setattr(DenoiserModule, "loss", killed)
        with pytest.raises(Killed):
            train.main(arguments(tmp_path, *short))
    run = tmp_path / "digits"
    stored = load_checkpoint(run / "checkpoints" / "last.ckpt")
    assert (stored["global_step"], epochs_in(stored)) == (61, 1)
    assert load_checkpoint(run / "checkpoints" / "before-onset.ckpt")["global_step"] == 0
    assert train.main([f"resume={run}"]) == 0
    assert series(run) == series(tmp_path / "whole")


def test_every_epoch_sees_every_sample_once_in_its_own_order():
    module = Regression()
    epochs = [torch.cat([module.batch_indices(epoch, step) for step in range(5)]) for epoch in (0, 1)]
    for order in epochs:
        assert order.sort().values.tolist() == list(range(20))
    assert not torch.equal(*epochs)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path, monkeypatch):
    from ldm_privacy.training.denoiser import DenoiserModule

    original = DenoiserModule.loss

    def poisoned(self, indices):
        losses = original(self, indices)
        if self.current_epoch == 2:
            losses["loss"] = losses["loss"] * float("nan")
        return losses

    monkeypatch.setattr(DenoiserModule, "loss", poisoned)
    with pytest.raises(UserError, match=r"loss is nan in epoch 3, step \d+: lower denoiser.learning_rate. .*last\.ckpt"):
        train.main(arguments(tmp_path))
    checkpoint = load_checkpoint(tmp_path / "digits" / "checkpoints" / "last.ckpt")
    assert all(value.isfinite().all() for value in checkpoint["state_dict"].values())
    monkeypatch.setattr(DenoiserModule, "loss", original)
    assert train.main([f"resume={tmp_path}/digits"]) == 0
    assert {epoch for _, epoch, name in series(tmp_path / "digits") if name == "denoiser/train_loss"} == {1, 2, 3, 4}


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


class FullDisk:
    """A trainer whose checkpoint doesn't fit on the disk."""

    def save_checkpoint(self, path):
        path.write_bytes(b"half of")
        raise OSError(28, "No space left on device")


def test_a_full_disk_leaves_the_previous_checkpoint_whole(tmp_path):
    path = tmp_path / "last.ckpt"
    path.write_bytes(b"the old one")
    with pytest.raises(UserError, match=r"can't be written \(No space left on device\).*is whole"):
        save_checkpoint(FullDisk(), path)
    assert path.read_bytes() == b"the old one"
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_the_kept_copy_outlives_the_next_checkpoint(tmp_path):
    class Disk:
        def save_checkpoint(self, path):
            path.write_bytes(b"new")

    path, copy = tmp_path / "last.ckpt", tmp_path / "before-onset.ckpt"
    path.write_bytes(b"old")
    keep_copy(path, copy)
    save_checkpoint(Disk(), path)
    assert (path.read_bytes(), copy.read_bytes()) == (b"new", b"old")
