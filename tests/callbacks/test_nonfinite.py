"""A loss that is not finite ends the training with what to lower and what is left."""

from types import SimpleNamespace

import pytest
import torch

from ldm_privacy.callbacks import StopOnNonFiniteLoss
from ldm_privacy.errors import UserError


def end_of_batch(callback, loss, place, count=50):
    trainer = SimpleNamespace(num_training_batches=count, current_epoch=2, global_step=107)
    callback.on_train_batch_end(trainer, None, {"loss": torch.tensor(loss)}, None, place)


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), -float("inf")])
def test_it_looks_at_every_20th_loss_and_the_last_of_an_epoch(tmp_path, loss):
    callback = StopOnNonFiniteLoss(tmp_path / "last.ckpt", "denoiser.learning_rate")
    for place in range(50):
        end_of_batch(callback, 0.5, place)
        if place % 20 == 0 or place == 49:
            with pytest.raises(
                UserError, match=rf"^loss is {loss} in epoch 3, step 107: lower denoiser\.learning_rate\. There is no"
            ):
                end_of_batch(callback, loss, place)
        else:
            end_of_batch(callback, loss, place)


def test_the_last_good_checkpoint_is_named(tmp_path):
    (tmp_path / "last.ckpt").write_bytes(b"good")
    with pytest.raises(UserError, match=r"The last good checkpoint is .*last\.ckpt\.$"):
        end_of_batch(StopOnNonFiniteLoss(tmp_path / "last.ckpt", "x"), float("nan"), 0)
