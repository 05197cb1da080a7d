"""A whole run: files, curves, evaluation, and going on after every kind of stop."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from ldm_privacy.training.checkpoint import RECORD, load_checkpoint

import evaluate
import train
from ldm_privacy.errors import UserError
from tests.tiny import arguments, series

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def without_figures(monkeypatch):
    """Figures have tests of their own, and they are most of an evaluation's time."""
    monkeypatch.setattr("ldm_privacy.publish.evidence_figures", lambda *arguments: {})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def run(folder):
    """One run from start to end."""
    assert train.main(arguments(folder)) == 0
    return folder / "digits"


def test_the_promised_files_are_there(run):
    for name in (
        "config.yaml",
        "metrics.csv",
        "split.npz",
        "autoencoder/config.json",
        "autoencoder/diffusion_pytorch_model.safetensors",
        "checkpoints/last.ckpt",
        "checkpoints/before-onset.ckpt",
    ):
        assert (run / name).is_file(), name


def test_the_promised_series_are_there_at_epochs_0_2_and_4(run):
    values = series(run)
    for attack in ("sima", "loss", "pia"):
        for mask in ("all", "top60", "random60", "low60", "std60", "tuned"):
            for epoch in (0, 2, 4):
                point = {
                    name: values["denoiser", epoch, f"memorization/{attack}/{mask}/{name}"]
                    for name in (
                        *("auroc", "auroc_lower", "auroc_upper", "asr", "tpr_at_1fpr"),
                        *("tpr_at_1fpr_lower", "tpr_at_1fpr_upper"),
                    )
                }
                assert point["auroc_lower"] < point["auroc"] < point["auroc_upper"]
                assert 0 <= point["tpr_at_1fpr_lower"] <= point["tpr_at_1fpr"] <= point["tpr_at_1fpr_upper"] <= 1
                assert 0.5 <= point["asr"] <= 1
    assert {epoch for stage, epoch, name in values if name == "denoiser/train_loss"} == {1, 2, 3, 4}
    assert {epoch for stage, epoch, name in values if name == "denoiser/loss_heldout"} == {0, 2, 4}
    assert {epoch for stage, epoch, name in values if stage == "autoencoder"} == {1, 2}


def test_evaluation_equals_the_last_audit_exactly(run):
    assert evaluate.main([f"ckpt={run}/checkpoints/last.ckpt"]) == 0
    evaluated = json.loads((run / "evaluation" / "metrics.json").read_text())
    logged = {name: value for (stage, epoch, name), value in series(run).items() if epoch == 4}
    assert evaluated["epoch"] == 4
    assert len(evaluated["series"]) > 40
    assert {name: logged[name] for name in evaluated["series"]} == evaluated["series"]


def test_evaluation_needs_the_checkpoint_alone(run, tmp_path):
    (tmp_path / "copy.ckpt").write_bytes((run / "checkpoints" / "last.ckpt").read_bytes())
    assert evaluate.main([f"ckpt={tmp_path}/copy.ckpt", f"out={tmp_path}/out"]) == 0
    logged = {name: value for (stage, epoch, name), value in series(run).items() if epoch == 4}
    evaluated = json.loads((tmp_path / "out" / "metrics.json").read_text())["series"]
    assert {name: logged[name] for name in evaluated} == evaluated


def test_scores_have_a_row_per_sample_attack_and_mask(run, tmp_path):
    evaluate.main([f"ckpt={run}/checkpoints/last.ckpt", f"out={tmp_path}"])
    scores = pd.read_parquet(tmp_path / "scores.parquet")
    assert len(scores) == 80 * 3 * 6
    assert not scores.duplicated(["sample_index", "attack", "mask"]).any()
    assert (scores["membership_scores"].map(len) == 2).all()
    split = load_checkpoint(run / "checkpoints" / "last.ckpt")[RECORD]["split"]
    assert set(scores.loc[scores["is_member"], "sample_index"]) == set(split["member_index"].tolist())


def test_an_evaluation_can_ask_for_other_attacks_and_timesteps(run, tmp_path):
    overrides = ["audit.attacks=[sima]", "audit.timesteps=[50]", "audit.max_samples=30"]
    assert evaluate.main([f"ckpt={run}/checkpoints/last.ckpt", f"out={tmp_path}", *overrides]) == 0
    rows = json.loads((tmp_path / "metrics.json").read_text())["rows"]
    assert {row["attack"] for row in rows} == {"sima"}
    assert {row["timestep"] for row in rows} == {50}


def test_an_evaluation_keeps_the_checkpoints_networks_and_split(run):
    for override in ("denoiser.batch_size=3", "seed=3", "data.num_members=10", "data.group_column=x"):
        with pytest.raises(UserError, match=re.escape(override.partition("=")[0])):
            evaluate.main([f"ckpt={run}/checkpoints/last.ckpt", override])


def test_the_checkpoint_loads_without_running_anything_in_it(run):
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert set(checkpoint[RECORD]) >= {"config", "split", "autoencoder", "normalisation"}


def test_a_folder_that_exists_is_never_overwritten(run, folder, capsys):
    before = (run / "metrics.csv").read_bytes()
    assert train.main(arguments(folder, "trainer.max_epochs=1", "autoencoder.max_epochs=1")) == 0
    assert (folder / "digits-2" / "metrics.csv").exists()
    assert "digits-2" in capsys.readouterr().out
    assert (run / "metrics.csv").read_bytes() == before


def test_the_same_seed_gives_the_same_run_and_another_seed_another(run, tmp_path):
    train.main(arguments(tmp_path))
    assert series(tmp_path / "digits") == series(run)
    train.main(arguments(tmp_path, "seed=1", "name=other"))
    assert series(tmp_path / "other") != series(run)


def test_resuming_a_finished_run_shows_its_table(run, capsys):
    before = series(run)
    assert train.main([f"resume={run}"]) == 0
    assert "sima/top60" in capsys.readouterr().out
    assert series(run) == before


def test_a_resumed_run_may_go_further_and_equals_one_that_never_stopped(tmp_path, run):
    train.main(arguments(tmp_path, "trainer.max_epochs=2"))
    assert train.main([f"resume={tmp_path}/digits", "trainer.max_epochs=4"]) == 0
    assert series(tmp_path / "digits") == series(run)


def test_a_resumed_run_keeps_its_config(run):
    with pytest.raises(UserError, match=r"'denoiser\.learning_rate' can't be changed here"):
        train.main([f"resume={run}", "denoiser.learning_rate=1"])


def stop_when(process: subprocess.Popen, reached, number: int) -> str:
    """Send a signal once `reached()` is true; the rest of the output."""
    deadline = time.monotonic() + 120
    while not reached():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        os.sched_yield()
    process.send_signal(number)
    return process.communicate(timeout=120)[0]


def start(folder: Path) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "train.py"), *arguments(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder, env=environment)


@pytest.mark.parametrize(
    ("stage", "epoch"),
    [
        ("autoencoder", 1),
        # A kill at these points differs from the others in the epoch alone.
        pytest.param("denoiser", 0, marks=pytest.mark.slow),
        pytest.param("denoiser", 1, marks=pytest.mark.slow),
        ("denoiser", 3),
    ],
    ids=str,
)
def test_a_killed_run_goes_on_to_the_same_curves(run, tmp_path, stage, epoch):
    there = tmp_path / "digits"
    process = start(tmp_path)

    def reached():
        return (there / "metrics.csv").exists() and f"{stage},{epoch}," in (there / "metrics.csv").read_text()

    stop_when(process, reached, signal.SIGKILL)
    assert train.main([f"resume={there}"]) == 0
    assert series(there) == series(run)


def test_ctrl_c_stores_a_checkpoint_and_prints_how_to_go_on(run, tmp_path):
    there = tmp_path / "digits"
    process = start(tmp_path)
    output = stop_when(process, lambda: "denoiser,1," in _text(there / "metrics.csv"), signal.SIGINT)
    assert process.returncode == 130, output
    assert f"python train.py resume={there}" in output.replace("\n", "")
    assert "Traceback" not in output
    assert train.main([f"resume={there}"]) == 0
    assert series(there) == series(run)


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""
