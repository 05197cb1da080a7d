"""A run whose members were drawn by coins: what it stores, logs, says and evaluates to."""

import json

import numpy as np
import pytest
import torch

from ldm_privacy.config import compose
from ldm_privacy.errors import UserError
from ldm_privacy.randomness import uniform
from ldm_privacy.recipes import cli
from ldm_privacy.recipes.run_setup import RunSetup
from ldm_privacy.recipes.terminal import progress
from ldm_privacy.targets.record import Checkpoint
from tests.pages import text_of
from tests.tiny import PIXELS, arguments, series, settings

COINS = [
    *PIXELS,
    "data.split=coin",
    "audit.masks={top60: null, low60: null}",
    "audit.attacks={pia: null, loss: null}",
    "watch.loss_gap=null",
]
SHORT = ["trainer.max_epochs=2", "audit.keep_fractions=[]", "audit.calibrations={history: null, combined: null}"]


def test_a_run_by_coins_bounds_epsilon_at_every_audit_and_evaluates_to_the_last(tmp_path, capsys):
    assert cli.train(arguments(tmp_path, *COINS, *SHORT)) == 0
    run = tmp_path / "digits"
    assert "(a fair coin each); split" in capsys.readouterr().out
    with np.load(run / "split.npz") as stored:
        assert stored["by_coins"].tolist() == [1]
    assert Checkpoint.read(run / "checkpoints" / "last.ckpt").split.by_coins
    curves = series(run)
    bounds = {(epoch, name): value for (_, epoch, name), value in curves.items() if name.endswith("epsilon_lower")}
    assert {epoch for epoch, _ in bounds} == {0, 2}
    assert (2, "memorization/sima/random60/epsilon_lower") in bounds

    assert cli.evaluate([f"ckpt={run}/checkpoints/last.ckpt"]) == 0
    told = capsys.readouterr().out
    for words in ("Epsilon by the coins that decided who is a member", "Epsilon is"):
        assert words in told
    metrics = json.loads((run / "evaluation" / "metrics.json").read_text())
    assert metrics["series"].items() >= {name: value for (epoch, name), value in bounds.items() if epoch == 2}.items()
    assert metrics["epsilon"]["insider"]["confidence"] == 0.95
    page = text_of((run / "evaluation" / "report.html").read_text())
    for words in ("(a fair coin each)", "How large epsilon is at least"):
        assert words in page
    with pytest.raises(UserError, match=r"data\.split"):
        cli.evaluate([f"ckpt={run}/checkpoints/last.ckpt", "data.split=counts"])
    with pytest.raises(UserError, match=r"data\.split"):
        cli.train([f"resume={run}", "data.split=counts"])


def test_who_is_audited_says_nothing_of_the_coins():
    def setup(*options):
        return RunSetup(
            compose("digits.yaml", settings("data.num_members=200", "data.num_heldout=200", *options)).config, progress
        )

    coins, limited = setup("data.split=coin"), setup("data.split=coin", "audit.max_samples=30")
    everybody, some = coins.audited_index, limited.audited_index
    assert torch.equal(everybody, coins.data.split.audited_index)
    by_hash = everybody[uniform("audited", (0, everybody), ()).argsort()]
    assert some.tolist() == sorted(by_hash[:60].tolist())
