"""Loggers: tidy rows, an offline W&B run, TensorBoard's event files."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import wandb
from matplotlib.figure import Figure

from ldm_privacy.errors import UserError
from ldm_privacy.registry import LOGGERS
from ldm_privacy.runs.loggers.tidy import TidyLogger
from ldm_privacy.runs.loggers.wandb import wandb_logger
from ldm_privacy.runs.pictures import log_picture, save_picture
from tests.reference.event_files import pictures_in, scalars_in

FACTS = {"split_hash": "0" * 64, "seed": 0}


def test_rows_are_tidy_and_numbers_survive_exactly(tmp_path):
    logger = LOGGERS.get("csv")(folder=tmp_path)
    assert isinstance(logger, TidyLogger)
    logger.log_metrics({"a/b": 1 / 3, "epoch": 4})
    logger.log_metrics({"c": 2, "autoencoder/epoch": 1})
    logger.log_metrics({"of no stage": 3})
    rows = (tmp_path / "metrics.csv").read_text().splitlines()
    assert rows == ["stage,epoch,series,value", f"denoiser,4,a/b,{1 / 3!r}", "autoencoder,1,c,2.0"]
    assert logger.file.read("denoiser") == {(4, "a/b"): 1 / 3}


def test_wandb_runs_offline_without_an_account_and_a_resumed_run_keeps_its_id(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    ids = []
    for resume in (False, True):
        logger = wandb_logger(folder=tmp_path, mode="auto", project="test", entity=None, facts=FACTS, resume=resume)
        assert logger.experiment.offline
        logger.log_metrics({"memorization/sima/all/auroc": 0.5, "epoch": 1})
        ids.append(logger.experiment.id)
        wandb.finish()
    assert ids[0] == ids[1]
    assert list(Path(tmp_path / "wandb").glob("offline-run-*/*.wandb"))


@pytest.mark.parametrize("environment", ["", "disabled"])
def test_disabled_means_no_logger(tmp_path, monkeypatch, environment):
    monkeypatch.setenv("WANDB_MODE", environment)
    mode = "auto" if environment else "disabled"
    assert wandb_logger(folder=tmp_path, mode=mode, project="x", entity=None, facts=FACTS, resume=False) is None


def test_tensorboard_has_the_curves_by_step_and_the_pictures(tmp_path):
    pytest.importorskip("tensorboard")
    logger = LOGGERS.get("tensorboard")(folder=tmp_path)
    for step in (0, 30):
        logger.log_metrics({"memorization/sima/all/auroc": 0.5 + step / 100, "epoch": step / 10}, step=step)
    grid = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    log_picture([logger], "samples", grid, epoch=3)
    log_picture([logger], "roc", Figure(), epoch=3)
    logger.finalize("success")
    assert scalars_in(tmp_path / "tensorboard", "memorization/sima/all/auroc") == {0: 0.5, 30: pytest.approx(0.8)}
    pictures = pictures_in(tmp_path / "tensorboard")
    assert pictures["pictures/samples"] == {3: (12, 9)}
    assert list(pictures["pictures/roc"]) == [3]


def test_tensorboard_that_is_not_installed_is_named_when_it_is_asked_for(monkeypatch):
    """Before anything is built: a run folder would be left behind."""
    monkeypatch.delitem(sys.modules, "ldm_privacy.runs.loggers.tensorboard", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"'tensorboard' needs TensorBoard: pip install"):
        importlib.import_module("ldm_privacy.runs.loggers.tensorboard")


def test_pictures_are_stored_with_their_pixels(tmp_path):
    from PIL import Image

    grid = np.random.default_rng(0).integers(0, 256, (8, 16, 3), dtype=np.uint8)
    stored = np.asarray(Image.open(save_picture(tmp_path, "grid", grid)).convert("RGB"))
    assert stored.shape == (8 * 32, 16 * 32, 3)  # 512 wide, each pixel a square
    np.testing.assert_array_equal(stored[16::32, 16::32], grid)
    assert save_picture(tmp_path, "figure", Figure()).stat().st_size > 100
