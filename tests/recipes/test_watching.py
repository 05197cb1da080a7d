"""Watchers of a whole run: each at its own cadence, and going on after a stop."""

import pytest

from ldm_privacy.recipes import cli
from tests.tiny import arguments, series

OPTIONS = [
    "audit.attacks=[sima]",
    "audit.masks=[all]",
    "audit.keep_fractions=[]",
    "audit.every_n_epochs=3",
    "autoencoder.max_epochs=0",
    "watch.loss_gap.every.epochs=1",
    "watch={generations: {class: generations, num_steps: 2, every: {epochs: 2}}}",
]


@pytest.fixture(scope="module")
def looked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("watching")
    assert cli.train(arguments(folder, *OPTIONS, "trainer.max_epochs=6")) == 0
    return folder / "digits"


def epochs_of(values, name):
    return {epoch for _, epoch, each in values if each == name}


def test_each_quantity_has_its_own_cadence(looked):
    values = series(looked)
    assert epochs_of(values, "memorization/sima/all/auroc") == {0, 3, 6}
    assert epochs_of(values, "denoiser/loss_heldout") == {0, 1, 2, 3, 4, 5, 6}
    assert epochs_of(values, "denoiser/loss_gap_rise_lower") == {1, 2, 3, 4, 5, 6}
    assert epochs_of(values, "generations/memorized") == {2, 4, 6}
    for epoch in (2, 4, 6):
        point = {
            name: values["denoiser", epoch, f"generations/{name}"] for name in ("memorized", "memorized_lower", "rise_lower")
        }
        assert 0 <= point["memorized_lower"] <= point["memorized"] <= 1
        assert -0.5 <= point["rise_lower"] <= 0.5
    assert (looked / "figures" / "most_copied.png").stat().st_size > 500


def test_a_run_that_is_stopped_between_looks_goes_on_as_if_it_had_not(looked, tmp_path, monkeypatch, capsys):
    from ldm_privacy.training.denoiser import DenoiserModule

    original = DenoiserModule.loss

    def killed(self, indices):
        if self.current_epoch == 4:
            raise KeyError
        return original(self, indices)

    with monkeypatch.context() as patch:
        patch.setattr(DenoiserModule, "loss", killed)
        with pytest.raises(KeyError):
            cli.train(arguments(tmp_path, *OPTIONS, "trainer.max_epochs=6"))
    run = tmp_path / "digits"
    # The newest checkpoint is of the audit after epoch 3; what was seen after epoch 4 is seen again.
    assert max(epoch for _, epoch, _ in series(run)) == 4
    assert cli.train([f"resume={run}"]) == 0
    assert series(run) == series(looked)
    printed = " ".join(capsys.readouterr().out.split())
    assert "Onset of memorized generations: none (0.0 % of 1,000 at the last look)." in printed
    assert "Onset of the loss gap:" in printed
