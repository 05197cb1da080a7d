"""metrics.csv and W&B."""

from pathlib import Path

import wandb

from ldm_privacy.training.loggers import TidyLogger, wandb_logger


def rows(logger):
    return logger.path.read_text().splitlines()


def test_rows_are_tidy_and_numbers_survive_exactly(tmp_path):
    logger = TidyLogger(tmp_path / "metrics.csv")
    logger.log_metrics({"a/b": 1 / 3, "epoch": 4})
    logger.log_metrics({"c": 2, "autoencoder/epoch": 1})
    assert rows(logger) == ["stage,epoch,series,value", f"denoiser,4,a/b,{1 / 3!r}", "autoencoder,1,c,2.0"]


def test_cut_back_drops_what_comes_after_the_checkpoint(tmp_path):
    logger = TidyLogger(tmp_path / "metrics.csv")
    for epoch in (1, 2):
        logger.log_metrics({"x": epoch, "autoencoder/epoch": epoch})
    for epoch in (0, 1, 2, 3):
        logger.log_metrics({"y": epoch, "epoch": epoch})
    with logger.path.open("a") as file:
        file.write("denoiser,3,half a r")  # a kill in the middle of a row
    logger.cut_back("denoiser", 1)
    assert [row.split(",")[:2] for row in rows(logger)[1:]] == [
        ["autoencoder", "1"],
        ["autoencoder", "2"],
        ["denoiser", "0"],
        ["denoiser", "1"],
    ]
    logger.cut_back("autoencoder", 1)
    assert rows(logger)[1:] == ["autoencoder,1,x,1.0"]


def test_wandb_runs_offline_without_an_account_and_a_resumed_run_keeps_its_id(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    ids = []
    for resume in (False, True):
        logger = wandb_logger(tmp_path, mode="auto", project="test", entity=None, config={"a": 1}, resume=resume)
        assert logger.experiment.offline
        logger.log_metrics({"memorization/sima/all/auroc": 0.5, "epoch": 1})
        ids.append(logger.experiment.id)
        wandb.finish()
    assert ids[0] == ids[1]
    assert list(Path(tmp_path / "wandb").glob("offline-run-*/*.wandb"))


def test_disabled_means_no_logger(tmp_path):
    assert wandb_logger(tmp_path, mode="disabled", project="x", entity=None, config={}, resume=False) is None
