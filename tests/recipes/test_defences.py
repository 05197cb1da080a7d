"""Defences in whole runs: a private training that stops and goes on, and what is said of it; the others in their reports."""

import pytest

from ldm_privacy.config import compose
from ldm_privacy.errors import UserError
from ldm_privacy.metrics.rounding import at_most
from ldm_privacy.recipes import cli
from ldm_privacy.recipes.run_setup import RunSetup
from ldm_privacy.targets.door import open_target
from ldm_privacy.targets.privacy import Privacy
from ldm_privacy.targets.record import Checkpoint
from ldm_privacy.training.per_sample import epsilon
from ldm_privacy.types import no_progress
from tests.tiny import arguments, series, settings

QUICK = ["audit.masks=[all]", "audit.keep_fractions=[]", "audit.calibrations=[]"]
PRIVATE = [
    "denoiser.privacy.noise_multiplier=2",
    "denoiser.condition=labels",
    "denoiser.channel_map=whitening",
    "audit.attacks={sima: {class: sima}, curvature: {class: curvature}}",  # which asks for gradients itself
    *QUICK,
]


@pytest.fixture
def needs_opacus():
    pytest.importorskip("opacus", reason="pip install -e .[privacy]")


@pytest.mark.slow
def test_a_private_run_that_goes_on_says_what_it_guarantees(tmp_path, needs_opacus, capsys):
    assert cli.train(arguments(tmp_path, *PRIVATE, "trainer.max_epochs=1")) == 0
    assert cli.train([f"resume={tmp_path}/digits", "trainer.max_epochs=2"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    run = tmp_path / "digits"
    given = ("what the channel map 'whitening' has of the members that it was fitted to",)
    begun = Privacy(2.0, 1.0, 16 / 40, 40**-1.1, given)
    reached = Checkpoint.read(run / "checkpoints" / "last.ckpt").privacy
    assert reached == begun.after(6, epsilon(begun, 6))
    curves = series(run)
    curve = {epoch: value for (_, epoch, name), value in curves.items() if name == "denoiser/epsilon"}
    assert curve == {1: epsilon(begun, 3), 2: epsilon(begun, 6)}
    assert "DP-SGD: each member in a step with probability 0.4, its gradient clipped to 1, noise multiplier 2." in said
    assert f"At the end: {reached}" in said
    assert open_target(run / "checkpoints" / "last.ckpt").facts["differential privacy"] == str(reached)
    assert ("denoiser", 2, "memorization/curvature/all/auroc") in curves


def test_what_to_install_is_said_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr("ldm_privacy.config.privacy.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'^denoiser\.privacy: it needs Opacus: pip install "ldm-privacy\[privacy\]"\.$'):
        cli.train(arguments(tmp_path / "runs", "denoiser.privacy.noise_multiplier=1"))
    assert not (tmp_path / "runs").exists()


def test_the_plan_says_what_a_private_run_will_guarantee(tmp_path, needs_opacus, capsys):
    assert cli.train(arguments(tmp_path, *PRIVATE, "dry_run=true")) == 0
    begun = Privacy(2.0, 1.0, 16 / 40, 40**-1.1)
    said = " ".join(capsys.readouterr().out.split())
    assert f"At the end: epsilon at most {at_most(epsilon(begun, 12))} at delta 0.018" in said


def test_a_flattened_run_told_wrong_classes_at_the_ends_of_the_schedule_says_so(tmp_path, capsys):
    options = [
        "denoiser.channel_map.class=flattening",
        "denoiser.channel_map.num_samples=10",
        "denoiser.timestep_sampling.class=u_shaped",
        "denoiser.condition.class=labels",
        "denoiser.condition.noise=0.25",
        "audit.attacks=[sima]",
        "trainer.max_epochs=1",
        *QUICK,
    ]
    assert cli.train(arguments(tmp_path, *options)) == 0
    assert "channel map: flattening, a 4 x 4 matrix of determinant" in " ".join(capsys.readouterr().out.split())
    last = tmp_path / "digits" / "checkpoints" / "last.ckpt"
    assert Checkpoint.read(last).privacy is None
    assert "flattening, a 4 x 4 matrix" in open_target(last).facts["latents"]
    setup = RunSetup(compose("digits.yaml", settings(*options)).config, no_progress)
    assert setup.facts["timesteps of training"] == "u_shaped"
    assert "a share of 0.25 was told a random class" in setup.condition.note
