"""Memorized generations in training: when a look is due, what a known generator gives, and going on after a stop."""

from types import SimpleNamespace

import pytest
import torch

import train
from callbacks.generations import MemorizedGenerations
from ldm_privacy.onset import OnsetDetector
from tests.tiny import arguments, series

SMALL = [
    "audit.attacks=[sima]",
    "audit.masks={top60: null, random60: null, low60: null, std60: null}",
    "audit.keep_fractions=[]",
    "autoencoder.max_epochs=1",
    "geometry.distortion_rank=0",
]


class Recorder:
    def __init__(self):
        self.rows = {}

    def log_metrics(self, metrics):
        epoch = metrics.pop("epoch")
        assert epoch not in self.rows
        self.rows[epoch] = metrics


class Training:
    """A trainer and a module as far as the callback sees them."""

    def __init__(self, max_epochs):
        self.logger = Recorder()
        self.trainer = SimpleNamespace(max_epochs=max_epochs, loggers=[self.logger], sanity_checking=False)
        self.module = SimpleNamespace(trainer=self.trainer, current_epoch=0, predictor="averaged weights")

    def audit(self, callback, epoch, num_batches=3):
        self.trainer.sanity_checking = epoch == 0
        self.module.current_epoch = max(epoch - 1, 0)
        for _ in range(num_batches):
            callback.on_validation_batch_end(self.trainer, self.module)
        callback.on_validation_epoch_end(self.trainer, self.module)


IMAGES = torch.rand(80, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1


def copies_of(index):
    """A generator whose images are those ones with a little noise, 20 times each."""

    def generate(predictor, *, progress):
        assert predictor == "averaged weights"
        noise = torch.randn(20 * len(index), 1, 4, 4, generator=torch.Generator().manual_seed(1))
        return IMAGES[index].repeat(20, 1, 1, 1) + 0.01 * noise

    return generate


def callback(generate, **options):
    return MemorizedGenerations(
        generate, IMAGES.__getitem__, torch.arange(40), torch.arange(40, 80), 10, OnsetDetector(2), **options
    )


def test_looks_are_the_first_audits_at_or_after_the_cadence_and_the_last():
    training = Training(max_epochs=37)
    it = callback(copies_of(torch.arange(40)))
    for epoch in (0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 37):
        training.audit(it, epoch)
    assert list(training.logger.rows) == [12, 20, 32, 37]


def test_a_memoriser_has_an_onset_and_a_generator_of_heldout_images_has_none():
    training, shown, lines = Training(max_epochs=40), [], []
    it = callback(
        copies_of(torch.arange(40)),
        say=lines.append,
        show=lambda name, picture, epoch: shown.append((name, picture.shape, epoch)),
    )
    for epoch in (0, 10, 20, 30):
        training.audit(it, epoch)
    assert it.onset.onset_epoch == it.summary()["onset_epoch_generations"] == 10
    row = training.logger.rows[20]
    assert row["generations/memorized"] == 1.0
    assert row["generations/memorized_heldout"] == 0.0
    assert row["generations/num_members_copied"] == 40
    assert row["generations/rise"] == 0.5
    assert 0 < row["generations/rise_lower"] < 0.5
    assert row["generations/onset_epoch"] == 10.0
    assert "generations/onset_epoch" not in training.logger.rows[10]
    assert (
        lines[0]
        == "epoch 10: 100.0 % of 800 generations copy a member, 0.0 % a held-out image (nearest-neighbour ratio below 1/3)"
    )
    # 18 pairs of 4x4 pictures, six pictures a row, a pixel between them.
    assert shown[0] == ("most_copied", (6 * 5 - 1, 6 * 5 - 1, 3), 10)

    control, training = callback(copies_of(torch.arange(40, 80))), Training(max_epochs=40)
    for epoch in (0, 10, 20, 30, 40):
        training.audit(control, epoch)
    assert control.onset.onset_epoch is None
    assert training.logger.rows[40]["generations/memorized"] == 0.0
    assert training.logger.rows[40]["generations/rise"] == -0.5


def test_a_restored_callback_goes_on_as_if_it_had_not_stopped():
    straight, stopped = (callback(copies_of(torch.arange(40))) for _ in range(2))
    one, two = Training(max_epochs=40), Training(max_epochs=40)
    for epoch in (0, 12, 24, 36, 40):
        one.audit(straight, epoch)
    for epoch in (0, 12, 24, 36, 40):
        again = callback(copies_of(torch.arange(40)))
        again.load_state_dict(stopped.state_dict())
        two.audit(again, epoch)
        stopped = again
    assert two.logger.rows == one.logger.rows
    assert stopped.state_dict() == straight.state_dict()


@pytest.fixture(scope="module")
def looked(tmp_path_factory):
    """A whole run with looks after epochs 4 and 6."""
    folder = tmp_path_factory.mktemp("generations")
    options = ["audit.generations.every_n_epochs=3", "audit.generations.num_steps=2", "trainer.max_epochs=6"]
    assert train.main(arguments(folder, *SMALL, *options)) == 0
    return folder / "digits"


def test_a_whole_run_has_looks_at_its_own_cadence(looked):
    values = series(looked)
    epochs = {epoch for _, epoch, name in values if name == "generations/memorized"}
    assert epochs == {4, 6}
    for epoch in epochs:
        point = {
            name: values["denoiser", epoch, f"generations/{name}"] for name in ("memorized", "memorized_lower", "rise_lower")
        }
        assert 0 <= point["memorized_lower"] <= point["memorized"] <= 1
        assert -0.5 <= point["rise_lower"] <= 0.5
    assert {epoch for _, epoch, name in values if name == "denoiser/loss_gap_rise_lower"} == {2, 4, 6}
    assert (looked / "figures" / "most_copied.png").stat().st_size > 500


def test_a_run_that_goes_on_equals_one_that_never_stopped(looked, tmp_path, capsys):
    options = ["audit.generations.every_n_epochs=3", "audit.generations.num_steps=2"]
    train.main(arguments(tmp_path, *SMALL, *options, "trainer.max_epochs=4"))
    assert train.main([f"resume={tmp_path}/digits", "trainer.max_epochs=6"]) == 0
    assert series(tmp_path / "digits") == series(looked)
    printed = " ".join(capsys.readouterr().out.split())
    assert "Onset of memorized generations: none (0.0 % of 1,000 at the last look)." in printed
    assert "Onset of the loss gap: none. Its rise over the untrained denoiser was" in printed
