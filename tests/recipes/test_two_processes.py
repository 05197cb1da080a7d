"""Two processes on CPUs (gloo) train, audit and resume as one does; mistakes are told once."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch

from ldm_privacy.config import compose_stored
from ldm_privacy.data.split import Split
from ldm_privacy.errors import UserError
from ldm_privacy.recipes import cli
from ldm_privacy.recipes.audit import audit_checkpoint
from ldm_privacy.recipes.run_setup import RunSetup
from ldm_privacy.recipes.terminal import progress
from ldm_privacy.runs.folder import RunFolder
from ldm_privacy.runs.history import ScoreHistory
from ldm_privacy.targets.record import Checkpoint
from ldm_privacy.types import AuditKey
from tests.recipes.float64_training import train as train_in_float64
from tests.tiny import DISTORTION, arguments, series

ROOT = Path(__file__).resolve().parents[2]
# Each process draws dropout masks of its own, so there is none here. Batches of 21 and 37 audited samples a side are shared
# unevenly. `shrunk` is the estimator of influence that needs all samples at once.
OPTIONS = [
    DISTORTION,
    "denoiser.network.dropout=0",
    "denoiser.condition=labels",
    "autoencoder.batch_size=21",
    "data.flip=true",
    "geometry.influence.class=shrunk",
    "geometry.influence.num_probes=4",
    "audit.max_samples=37",
    "audit.memory_gib=0.001",
    "audit.attacks=[sima,loss]",
    "audit.keep_fractions=[0.5]",
    "audit.views=[null,shuffled]",
    "data.repeats={share: 0.2, times: 3}",
]


def start(*line: str, script: Path = ROOT / "train.py") -> subprocess.Popen:
    environment = {key: value for key, value in os.environ.items() if key not in ("LOCAL_RANK", "RANK", "WORLD_SIZE")}
    return subprocess.Popen(
        [sys.executable, str(script), *line],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**environment, "OMP_NUM_THREADS": "1"},
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def two(folder):
    """A run of two processes, and what it printed."""
    process = start(*arguments(folder / "two", *OPTIONS, "trainer.devices=2", "trainer.max_epochs=2"))
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert errors == ""
    return folder / "two" / "digits", output


@pytest.fixture(scope="module")
def one(folder):
    assert cli.train(arguments(folder / "one", *OPTIONS)) == 0
    return folder / "one" / "digits"


def assert_same(run, other, *, until):
    """Equal to float rounding, which the division by small second moments in AdamW makes larger than float's own.

    AUROCs of 20 members and 20 held-out samples go in steps of 1/400: at a tie of rounding, pairs are swapped.
    """
    mine, theirs = ({key: value for key, value in series(each).items() if key[1] <= until} for each in (run, other))
    assert mine.keys() == theirs.keys()
    for key, value in mine.items():
        if key[2].endswith("/auroc"):
            assert abs(value - theirs[key]) <= 4 / 400, key
        elif key[2].startswith(("memorization/condition_use", "denoiser/", "geometry/", "baseline", "autoencoder/train")):
            assert value == pytest.approx(theirs[key], rel=1e-3, abs=1e-4), key


KEY = AuditKey("sima", "all")


def kept(run, epoch):
    """The scores that an audit stored."""
    setup = RunSetup(compose_stored((run / "config.yaml").read_text()).config, progress, split=Split.load(run / "split.npz"))
    return ScoreHistory(run / "scores", setup.provenance).read()[epoch]


@pytest.mark.slow
def test_the_curves_are_those_of_one_process(one, two):
    run, _ = two
    assert_same(run, one, until=2)


@pytest.mark.slow
def test_one_process_prints_and_writes(two):
    run, output = two
    assert [each.name for each in run.parent.iterdir()] == ["digits"]
    assert output.count("This run is") == output.count("Memorization onset (sima/all)") == 1
    assert len(re.findall(r"^epoch +2 ", output, re.MULTILINE)) == 1
    # Posterior means of audited images, of other members and of mirror images; of the audited complexity, reconstruction
    # error, influence (of each sample alone, and shrunk toward the set's) and distortion.
    assert len(list((run / "store").rglob("*.safetensors"))) == 8


@pytest.mark.slow
def test_every_sample_is_audited_once_with_the_score_of_one_process(one, two):
    run, _ = two
    mine, theirs = kept(run, 0), kept(one, 0)  # before the rounding of any training
    assert len(mine.sample_index.unique()) == len(mine.sample_index) == 74
    assert torch.equal(mine.sample_index, theirs.sample_index)
    attacks = [f"{name}{view}" for name in ("sima", "loss") for view in ("", "_null", "_shuffled")]
    assert mine.timesteps == theirs.timesteps
    assert {attack: mine.timesteps[attack] for attack in attacks} == {attack: [10, 100] for attack in attacks}
    assert mine.scores.keys() == theirs.scores.keys()
    assert mine.standing.keys() == theirs.standing.keys() >= mine.scores.keys()
    for key in (AuditKey(attack, "all") for attack in attacks):
        assert mine.scores[key].shape == (1, 2, 74)
        torch.testing.assert_close(mine.scores[key], theirs.scores[key], rtol=1e-3, atol=0)
    # Distances from a median in interquartile ranges: those near it have no digits to agree in.
    torch.testing.assert_close(mine.standing[KEY], theirs.standing[KEY], rtol=1e-3, atol=1e-3)


def audit_of(run, folder):
    """The audit of a run's checkpoint, as if that lay in `folder`: what is stored there is read."""
    checkpoint = Checkpoint.read(run / "checkpoints" / "last.ckpt")
    setup = RunSetup(compose_stored(checkpoint.config).config, progress, split=checkpoint.split)
    audited = audit_checkpoint(setup, checkpoint, RunFolder(folder))
    assert audited is not None
    return audited


@pytest.mark.slow
def test_one_process_gives_its_checkpoint_the_scores_of_its_last_audit(two, tmp_path):
    run, _ = two
    shutil.copytree(run / "scores", tmp_path / "scores")
    report = audit_of(run, tmp_path).report
    audited = kept(run, 2)
    assert torch.equal(report.data.sample_index, audited.sample_index)
    assert {row.key for row in report.rows} == audited.standing.keys() > {AuditKey("sima_history", "all")}
    torch.testing.assert_close(report.scores_at(KEY).float(), audited.standing[KEY], rtol=1e-5, atol=1e-5)
    for key, value in report.series().items():
        if key.endswith("/auroc"):
            assert abs(value - series(run)["denoiser", 2, key]) <= 1 / 400, key


@pytest.mark.slow
def test_one_process_finds_the_geometry_that_two_stored(two, monkeypatch, tmp_path):
    run, _ = two

    def refuse(*_):
        raise AssertionError("computed although it is stored")

    anew = audit_of(run, tmp_path).samples
    monkeypatch.setattr("ldm_privacy.geometry.jacobian.DecoderJacobian.__init__", refuse)
    monkeypatch.setattr("ldm_privacy.models.kl.KLCodec.mean", refuse)
    monkeypatch.setattr("ldm_privacy.models.kl.KLCodec.decode", refuse)
    monkeypatch.setattr("ldm_privacy.audit.measure.image_complexity", refuse)
    stored = audit_of(run, run).samples
    assert torch.equal(stored.sample_index, anew.sample_index)
    for name in ("latent", "influence", "distortion", "reconstruction_error", "complexity", "mask_stability"):
        mine, theirs = (torch.as_tensor(getattr(each, name)) for each in (stored, anew))
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4, equal_nan=True, check_dtype=False)


@pytest.mark.slow
def test_steps_in_float64_are_those_of_one_process():
    # Shares of uneven size, and of none; gradients clipped over all of them.
    process = start("2", script=Path(__file__).with_name("float64_training.py"))
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    together = json.loads(output.splitlines()[-1])
    for batch_size, alone in train_in_float64(1).items():
        np.testing.assert_allclose(together[batch_size], alone, rtol=1e-9, err_msg=batch_size)


@pytest.mark.slow
def test_its_checkpoint_goes_on_with_one_process(one, two):
    run, _ = two
    assert cli.train([f"resume={run}", "trainer.devices=1", "trainer.max_epochs=4"]) == 0
    assert_same(run, one, until=4)


@pytest.mark.slow
def test_a_stop_in_mid_epoch_is_one_for_all_and_one_process_goes_on_from_it(one, folder):
    run = folder / "stopped" / "digits"
    process = start(*arguments(folder / "stopped", *OPTIONS, "trainer.devices=2", "denoiser.batch_size=1"))
    deadline = time.monotonic() + 300
    while not (run / "metrics.csv").exists() or "denoiser,0,memorization" not in (run / "metrics.csv").read_text():
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.02)
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=300)
    assert (process.returncode, errors) == (130, "")
    assert output.count("Stopped; the checkpoint is stored") == 1
    assert Checkpoint.read(run / "checkpoints" / "last.ckpt").parts["global_step"] % 20 == 1
    assert cli.train([f"resume={run}", "trainer.devices=1"]) == 0
    assert cli.train(arguments(folder / "whole", *OPTIONS, "denoiser.batch_size=1")) == 0
    assert_same(run, folder / "whole" / "digits", until=4)


def test_more_devices_than_there_are_cost_one_line_and_no_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    with pytest.raises(UserError, match=r"trainer\.devices: 4 CPU processes asked for, 2 there\. Use trainer\.devices=2\."):
        cli.train(arguments(tmp_path / "runs", "trainer.devices=4"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match=r"trainer\.devices: 4 GPUs asked for, 1 there\. Use trainer\.devices=1\."):
        cli.train(arguments(tmp_path / "runs", "trainer.devices=4", "trainer.accelerator=gpu"))
    assert not (tmp_path / "runs").exists()


def test_cuda_graphs_are_for_one_device(tmp_path):
    with pytest.raises(UserError, match=r"trainer\.compile: reduce-overhead is for one device; use default with several\."):
        cli.train(arguments(tmp_path / "runs", "trainer.devices=2", "trainer.compile=reduce-overhead"))
    assert not (tmp_path / "runs").exists()


def test_several_nodes_need_torchrun_with_the_same_numbers(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"trainer\.num_nodes: 2 nodes need torchrun.*torchrun --nnodes 2 --nproc-per-node 1"):
        cli.train(arguments(tmp_path / "runs", "trainer.num_nodes=2"))
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(UserError, match=r"torchrun started 3 processes, but 2 a node on trainer\.num_nodes=1"):
        cli.train(arguments(tmp_path / "runs", "trainer.devices=2"))
    assert not (tmp_path / "runs").exists()
