"""Stops in the middle of an epoch, losses that are not finite, disks that are full."""

import pytest
import torch
from lightning.pytorch import Callback, Trainer

import train
from callbacks.checkpoints import Interrupted, RunCheckpoint
from ldm_privacy.errors import UserError
from ldm_privacy.training.checkpoint import keep_copy, load_checkpoint, save_checkpoint
from ldm_privacy.training.stepwise import StepwiseModule
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


def fit(path, *callbacks, resume=None):
    module = Regression()
    checkpoint = RunCheckpoint(path, {}, every_n_minutes=60, is_due=lambda epoch: True, say=lambda line: None)
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
