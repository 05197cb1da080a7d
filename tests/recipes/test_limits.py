"""A limit on memorization in whole runs: stopping, keeping the best, going on when it may."""

import pytest

from ldm_privacy.errors import UserError
from ldm_privacy.recipes import cli
from ldm_privacy.targets.record import Checkpoint
from tests.tiny import arguments, series

SMALL = [
    "audit.attacks=[sima]",
    "audit.masks={top60: null, random60: null, low60: null, std60: null}",
    "audit.keep_fractions=[]",
    "audit.calibrations=[]",
    "audit.every_n_epochs=1",
    "autoencoder.max_epochs=1",
]


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A run that nothing stops."""
    folder = tmp_path_factory.mktemp("straight")
    assert cli.train(arguments(folder, *SMALL, "trainer.max_epochs=3")) == 0
    return folder / "digits"


def judged(run):
    """Epoch -> AUROC as a gate judges it: turned round where it lies below .5."""
    logged = {epoch: value for (_, epoch, name), value in series(run).items() if name == "memorization/sima/all/auroc"}
    return {epoch: max(value, 1 - value) for epoch, value in logged.items()}


def test_a_whole_run_stops_keeps_its_best_and_goes_on_when_it_may(straight, tmp_path, capsys):
    auroc = judged(straight)
    first_above = next(epoch for epoch in (1, 2) if auroc[epoch] > auroc[0])
    limit = (auroc[first_above] + max(auroc[epoch] for epoch in range(first_above))) / 2
    stop = [f"gate.auroc={limit}", "audit.stop.at=fail"]
    options = ["trainer.max_epochs=3"]
    assert cli.train(arguments(tmp_path, *SMALL, *options, *stop)) == 1
    run = tmp_path / "digits"
    printed = " ".join(capsys.readouterr().out.split())
    assert f"Stopped after epoch {first_above}, by the gate: fail: AUROC" in printed
    assert f"digits, epoch {first_above}:" in printed
    assert {epoch for _, epoch, name in series(run) if name == "denoiser/train_loss"} == set(range(1, first_above + 1))
    losses = {epoch: series(run)["denoiser", epoch, "denoiser/loss_heldout"] for epoch in range(first_above)}
    kept = Checkpoint.read(run / "checkpoints" / "under-limit.ckpt")
    assert kept.epoch == min(losses, key=losses.get)

    before = series(run)
    assert cli.train([f"resume={run}"]) == 1
    assert series(run) == before
    printed = " ".join(capsys.readouterr().out.split())
    assert f"Stopped after epoch {first_above}" in printed
    assert "sima/all" in printed

    assert cli.train([f"resume={run}", "gate.auroc=null", "audit.stop.at=null"]) == 0
    assert series(run) == series(straight)
    assert "Stopped after" not in capsys.readouterr().out


def test_a_lowered_rate_survives_a_resume(tmp_path, straight):
    auroc = judged(straight)
    limit = max(0.501, auroc[0] + 0.001)
    stop = [f"gate.auroc={limit}", "audit.stop.at=fail", "audit.stop.action=lower_learning_rate"]
    options = [*SMALL, *stop]
    cli.train(arguments(tmp_path, *options, "trainer.max_epochs=3"))
    cli.train(arguments(tmp_path, *options, "trainer.max_epochs=2", "name=resumed"))
    assert cli.train([f"resume={tmp_path}/resumed", "trainer.max_epochs=3"]) in (1, 3)
    values = series(tmp_path / "digits")
    assert series(tmp_path / "resumed") == values
    rates = [values["denoiser", epoch, "denoiser/learning_rate"] for epoch in range(4)]
    assert rates[0] == 1e-3
    assert rates[-1] < 1e-3
    assert rates == sorted(rates, reverse=True)


def test_a_whole_run_under_too_low_a_limit_ends_before_its_first_step(tmp_path):
    with pytest.raises(UserError, match=r"^gate\.auroc: 0\.501 is (below what so few samples can show|reached before)"):
        cli.train(arguments(tmp_path, *SMALL, "gate.auroc=0.501", "audit.stop.at=undecided"))
    assert not (tmp_path / "digits" / "checkpoints" / "last.ckpt").exists()
