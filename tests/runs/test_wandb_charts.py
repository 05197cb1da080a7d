"""Which series become charts in W&B, and what is written when a run goes on."""

import itertools
import json
import logging
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
import wandb

from ldm_privacy.runs.loggers.wandb import RunLogger, wandb_logger
from ldm_privacy.runs.series import SeriesFile
from ldm_privacy.watch.watcher import Look
from tests.reference.wandb_log import curves

SERIES = {"memorization/sima/all/auroc": 0.6, "memorization/sima/all/auroc_lower": 0.5}
CHARTS = {"auroc/sima/all": "memorization/sima/all/auroc"}


class Run(SimpleNamespace):
    """A W&B run that keeps what it is given."""

    def __init__(self, folder, *, offline=True, **settings):
        super().__init__(
            offline=offline, id="abc", dir=f"{folder}/wandb/offline-run-2-abc/files", summary={}, rows=[], axes={}, **settings
        )
        Path(self.dir).mkdir(parents=True, exist_ok=True)

    def define_metric(self, name, step_metric=None, **options):
        self.axes[name] = step_metric

    def log(self, row):
        self.rows.append({name: value for name, value in row.items() if not name.startswith("tables/")})
        if "_place" in row:
            self.summary["_place"] = row["_place"]


def train(logger, epochs):
    """Some epochs of a stage as they are logged: before the first step, and a look and a loss an epoch."""
    for epoch in epochs:
        series = {name: value + epoch / 100 for name, value in SERIES.items()}
        logger.log_look(series, CHARTS, epoch=epoch, step=10 * epoch)
        logger.log_picture("pictures/samples", [[0]], epoch)
        if epoch:
            logger.log_metrics({"denoiser/train_loss": 1 / epoch, "epoch": epoch}, step=10 * epoch)


@pytest.fixture(autouse=True)
def plain_media(monkeypatch):
    monkeypatch.setattr(wandb, "Image", lambda picture, caption: caption)
    monkeypatch.setattr("ldm_privacy.runs.wandb_table.Table", lambda columns, rows: rows)


def test_a_chart_has_its_short_name_its_axis_and_its_row(tmp_path):
    run = Run(tmp_path)
    logger = RunLogger(run, tmp_path)
    logger.log_metrics({"autoencoder/train_kl": 0.1, "autoencoder/epoch": 1}, step=4)
    train(logger, [0, 1])
    rows = [{name: value for name, value in row.items() if name != "_place"} for row in run.rows]
    assert rows == [
        {"train_codec/kl": 0.1, "_codec_epoch": 1},
        {"auroc/sima/all": 0.6, "_epoch": 0},
        {"pictures/samples": "epoch 0", "_epoch": 0},
        {"auroc/sima/all": 0.61, "_epoch": 1},
        {"pictures/samples": "epoch 1", "_epoch": 1},
        {"train/loss": 1.0, "_epoch": 1},
    ]
    assert {run.axes[name] for name in ("auroc/sima/all", "train/loss", "pictures/*")} == {"_epoch"}
    assert run.axes["train_codec/kl"] == "_codec_epoch"
    places = [row["_place"] for row in run.rows]
    assert places == sorted(set(places))


def test_in_full_detail_every_series_is_a_chart_under_its_own_name(tmp_path):
    run = Run(tmp_path)
    train(RunLogger(run, tmp_path, is_full=True), [0, 1])
    assert {name for row in run.rows for name in row if name[0] != "_"} == {*SERIES, "denoiser/train_loss", "pictures/samples"}
    assert all(run.axes[name] == "_epoch" for name in SERIES)


def test_a_look_that_names_no_charts_shows_everything_but_bounds():
    series = {"denoiser/drift": 1.0, "denoiser/drift_lower": 0.5, "denoiser/drift_upper": 2.0}
    assert Look(series).shown() == {"denoiser/drift": "denoiser/drift"}
    assert Look(series, charts={"drift": "denoiser/drift", "other": "not looked at"}).shown() == {"drift": "denoiser/drift"}
    assert Look(series, charts={}).shown() == {}


@pytest.mark.parametrize("is_full", [False, True])
def test_an_online_run_that_goes_on_gets_no_point_twice_and_none_too_few(tmp_path, is_full):
    whole = Run(tmp_path, offline=False)
    train(RunLogger(whole, tmp_path, is_full=is_full), range(5))
    for cut in range(5, len(whole.rows) + 1):  # W&B has so many rows; the checkpoint is of epoch 1
        (tmp_path / "metrics.csv").unlink(missing_ok=True)
        file = SeriesFile(tmp_path / "metrics.csv")
        file.write("denoiser", 1, SERIES)
        online = Run(tmp_path, offline=False)
        for row in whole.rows[:cut]:
            online.log(row)
        logger = RunLogger(online, tmp_path, is_full=is_full, is_resumed=True)
        logger.go_on(file)
        train(logger, range(2, 5))
        assert online.rows == whole.rows, cut


def test_an_offline_run_that_goes_on_is_written_whole_and_the_part_before_is_put_aside(tmp_path):
    first = Run(tmp_path)
    logger = RunLogger(first, tmp_path)
    file = SeriesFile(tmp_path / "metrics.csv")
    train(logger, range(2))
    for epoch in range(2):
        file.write("denoiser", epoch, {name: value + epoch / 100 for name, value in SERIES.items()})
    file.write("denoiser", 1, {"denoiser/train_loss": 1.0})
    before = tmp_path / "wandb" / "offline-run-1-abc"
    before.mkdir()
    (tmp_path / "wandb" / "offline-run-1-xyz").mkdir()  # another run's
    second = Run(tmp_path)
    logger = RunLogger(second, tmp_path, is_resumed=True)
    for _ in range(2):  # each stage asks
        logger.go_on(file)
    train(logger, [2])
    points = [(row["_epoch"], row["auroc/sima/all"]) for row in second.rows if "auroc/sima/all" in row]
    assert points == [(0, 0.6), (1, 0.61), (2, 0.62)]
    assert [row["_epoch"] for row in second.rows if "train/loss" in row] == [1, 2]
    assert second.axes["auroc/sima/all"] == "_epoch"
    assert sorted(path.name for path in (tmp_path / "wandb").iterdir()) == [
        "offline-run-1-xyz",
        "offline-run-2-abc",
        "superseded",
    ]
    assert (tmp_path / "wandb" / "superseded" / before.name).is_dir()
    assert json.loads((tmp_path / "wandb.json").read_text())["id"] == "abc"


def test_what_was_online_is_not_written_again_offline(tmp_path):
    train(RunLogger(Run(tmp_path, offline=False), tmp_path), range(2))
    file = SeriesFile(tmp_path / "metrics.csv")
    file.write("denoiser", 1, SERIES)
    for _ in range(2):  # nor in the second part without a network
        offline = Run(tmp_path)
        logger = RunLogger(offline, tmp_path, is_resumed=True)
        logger.go_on(file)
        train(logger, [2])
        assert {row["_epoch"] for row in offline.rows} == {2}
    assert not (tmp_path / "wandb" / "superseded").exists()


def test_a_part_that_cannot_be_put_aside_stays_and_the_run_goes_on(tmp_path):
    before = tmp_path / "wandb" / "offline-run-1-abc"
    before.mkdir(parents=True)
    (before.parent / "superseded").touch()  # no folder
    RunLogger(Run(tmp_path), tmp_path, is_resumed=True).go_on(SeriesFile(tmp_path / "metrics.csv"))
    assert before.is_dir()


def test_an_error_without_words_ends_no_run(tmp_path, monkeypatch, caplog):
    def init(**options):
        raise TimeoutError

    monkeypatch.setattr(wandb, "init", init)
    with caplog.at_level(logging.WARNING, "ldm_privacy"):
        assert wandb_logger(folder=tmp_path, mode="offline", project="test", entity=None, facts={}, resume=False) is None
    assert caplog.messages == ["W&B can't be used (TimeoutError): the curves are in metrics.csv"]


@pytest.mark.parametrize(("group", "name"), [(None, "seed-0"), ("beta", "plain seed-0")])
def test_a_run_of_a_group_is_told_apart_by_the_folder_that_it_lies_in(tmp_path, monkeypatch, group, name):
    folder, given = tmp_path / "plain" / "seed-0", {}
    folder.mkdir(parents=True)

    def init(*, dir, **options):
        given.update(options)
        return Run(dir, offline=True)

    monkeypatch.setattr(wandb, "init", init)
    wandb_logger(folder=folder, mode="offline", project="test", entity=None, group=group, facts={}, resume=False)
    assert (given["group"], given["name"]) == (group, name)


def test_without_a_network_a_run_is_kept_offline_and_says_how_to_send_it(tmp_path, monkeypatch, caplog):
    folder = tmp_path / "a run"
    folder.mkdir()
    modes = []

    def init(*, mode, dir, **options):
        modes.append(mode)
        if mode == "online":
            raise wandb.errors.CommError("Network error (ConnectionError)\nand more")
        return Run(dir, offline=True)

    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    monkeypatch.setattr(wandb, "init", init)
    with caplog.at_level(logging.WARNING, "ldm_privacy"):
        logger = wandb_logger(folder=folder, mode="auto", project="test", entity=None, facts={}, resume=False)
    assert modes == ["online", "offline"]
    command = f"wandb sync {shlex.quote(f'{folder}/wandb/offline-run-2-abc')}"
    (said,) = caplog.messages
    assert said.splitlines() == [
        "W&B can't be used (Network error (ConnectionError)), so this run is kept offline. Send it later with:",
        command,
    ]
    assert command in logger.commands()


def test_an_online_run_is_looked_at_by_its_address(tmp_path):
    logger = RunLogger(Run(tmp_path, offline=False, url="https://wandb.ai/me/my%20project/runs/abc"), tmp_path)
    assert list(logger.commands()) == ["wandb leet https://wandb.ai/me/my%20project/runs/abc"] or list(logger.commands()) == [
        "wandb leet 'https://wandb.ai/me/my%20project/runs/abc'"
    ]


def test_rows_of_the_file_come_back_as_they_were_written(tmp_path):
    file = SeriesFile(tmp_path / "metrics.csv")
    written = [
        ("autoencoder", 1, {"a": 1.0}),
        ("denoiser", 0, {"b": 1.0, "c": 2.0}),
        ("denoiser", 1, {"b": 3.0}),
        ("denoiser", 1, {"b": 4.0}),  # a look in the midst of an epoch
    ]
    for row in written:
        file.write(*row)
    assert list(file.rows()) == written
    assert list(itertools.islice(SeriesFile(tmp_path / "none.csv").rows(), 1)) == []


def test_the_terminal_viewer_gets_curves_and_no_counts_of_tables(tmp_path, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv("WANDB_MODE", "offline")
    logger = wandb_logger(folder=tmp_path, mode="offline", project="test", entity=None, facts={}, resume=False)
    for epoch in (0, 1):
        logger.log_look(SERIES, CHARTS, epoch=epoch, step=epoch)
    wandb.teardown()  # returns when all is written
    (path,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert curves(path) == {"auroc/sima/all": [(0, 0.6), (1, 0.6)]}
