"""A whole run: files, curves, evaluation, and going on after every kind of stop."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from ldm_privacy.audit.kept import KeptScores
from ldm_privacy.data.sources import Digits
from ldm_privacy.data.split import Split
from ldm_privacy.errors import UserError
from ldm_privacy.evidence.cell import Cell
from ldm_privacy.recipes import cli
from ldm_privacy.recipes.frontier.frontier import read_frontier
from ldm_privacy.recipes.train.fitting import Fitting
from ldm_privacy.runs.folder import RunFolder
from ldm_privacy.runs.history import Provenance, ScoreHistory
from ldm_privacy.runs.series import SeriesFile
from ldm_privacy.targets.record import RECORD, Checkpoint
from ldm_privacy.training.autoencoder import AutoencoderModule
from ldm_privacy.training.denoiser import DenoiserModule
from ldm_privacy.types import AuditKey
from tests.pages import text_of
from tests.tiny import DISTORTION, arguments, series

ROOT = Path(__file__).resolve().parents[2]
SHORT = ["audit.attacks=[sima]", "audit.masks=[all]", "audit.keep_fractions=[]"]


def last(run):
    return run / "checkpoints" / "last.ckpt"


@pytest.fixture(scope="module")
def evaluated(run, tmp_path_factory):
    """An evaluation of a copy of the last checkpoint, far from its run."""
    folder = tmp_path_factory.mktemp("evaluated")
    (folder / "copy.ckpt").write_bytes(last(run).read_bytes())
    assert cli.evaluate([f"ckpt={folder}/copy.ckpt", f"out={folder}/out"]) == 0
    return folder / "out"


def until(epoch, curves):
    """The curves of a denoiser that was trained for fewer epochs."""
    return {key: value for key, value in curves.items() if key[0] == "autoencoder" or key[1] <= epoch}


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


INSIDERS = {"sima_history", "sima_gained", "sima_calibrated", "combined"}


def numbers_of(folder):
    return json.loads((folder / "metrics.json").read_text())


def last_audit(run):
    """The series of the audit at epoch 4."""
    return {name: value for (stage, epoch, name), value in series(run).items() if (stage, epoch) == ("denoiser", 4)}


def test_evaluation_equals_the_last_audit_exactly_and_needs_the_checkpoint_alone(run, evaluated):
    found, logged = numbers_of(evaluated), last_audit(run)
    assert found["epoch"] == 4
    assert len(found["series"]) > 40
    assert {name: logged[name] for name in found["series"]} == found["series"]
    assert {row["attack"] for row in found["rows"]} == {"sima", "loss", "pia", "sima_complexity"}
    assert found["verdict"]["insider"] == found["verdict"]["outsider"] == "sima_complexity/all"
    missing = "none of these samples with this attack lies beside the checkpoint"
    assert missing in text_of((evaluated / "report.html").read_text())


def test_an_evaluation_in_its_run_equals_the_last_audit_with_all_that_looks_back(run, tmp_path, capsys):
    assert cli.evaluate([f"ckpt={last(run)}", f"out={tmp_path}"]) == 0
    found, logged = numbers_of(tmp_path), last_audit(run)
    assert found["series"] == {name: logged[name] for name in found["series"]}
    areas = {name for name in logged if re.fullmatch(r"memorization/\w+/\w+/auroc", name)}
    assert areas == {f"memorization/{row['attack']}/{row['mask']}/auroc" for row in found["rows"]}
    assert {name.split("/")[1] for name in areas} == {"sima", "loss", "pia", "sima_complexity", *INSIDERS}
    assert logged["memorization/sima_history/all/auroc"] != logged["memorization/sima/all/auroc"]
    assert (found["verdict"]["insider"], found["verdict"]["outsider"]) == ("sima_calibrated/all", "sima_complexity/all")
    assert "left out" not in capsys.readouterr().out


def test_a_first_audit_has_nothing_to_look_back_on_and_its_history_is_the_attack(run):
    first = {name: value for (stage, epoch, name), value in series(run).items() if (stage, epoch) == ("denoiser", 0)}
    assert first["memorization/sima_history/all/auroc"] == first["memorization/sima/all/auroc"]
    assert not any(name.startswith("calibration/sima_history/") for name in first)


def test_a_report_says_where_too_few_samples_were_there_to_fit_a_history_on(run, tmp_path):
    assert cli.evaluate([f"ckpt={last(run)}", f"out={tmp_path}", "audit.max_samples=30"]) == 0
    rows = {row["attack"]: row["auroc"]["value"] for row in numbers_of(tmp_path)["rows"] if row["mask"] == "all"}
    assert rows["sima_history"] == rows["sima"]
    rows = ", ".join(f"{row}/all" for row in ("sima_history", "sima_gained", "sima_calibrated", "combined"))
    words = f"nothing was fitted for {rows}: no earlier audit, or fewer than 20 samples"
    assert f"at epoch 0, 2; {words}" in " ".join(text_of((tmp_path / "report.html").read_text()).split())


def test_scores_have_a_row_per_sample_attack_and_mask(run, evaluated):
    scores = pd.read_parquet(evaluated / "scores.parquet")
    assert len(scores) == 80 * (3 * 6 + 1)  # alone, no earlier audit is known: of the calibrated scores complexity's
    assert not scores.duplicated(["sample_index", "attack", "mask"]).any()
    assert (scores["membership_scores"].map(len) == 2).all()
    members = Checkpoint.read(last(run)).split.member_index
    assert set(scores.loc[scores["is_member"], "sample_index"]) == set(members.tolist())


def test_an_evaluation_can_ask_for_other_attacks_and_timesteps(run, tmp_path, caplog, capsys):
    overrides = ["audit.attacks=[sima]", "audit.timesteps=[50]", "audit.max_samples=30"]
    assert cli.evaluate([f"ckpt={last(run)}", f"out={tmp_path}", *overrides]) == 0
    rows = numbers_of(tmp_path)["rows"]
    assert {row["attack"] for row in rows} == {"sima", "sima_complexity"}
    assert {timestep for row in rows for timestep in row["timesteps"]} == {50}
    told = " ".join(capsys.readouterr().out.split())
    assert told.count("what only the trainer can know is left out (history, gained, calibrated, combined).") == 1
    lines = [record.getMessage() for record in caplog.records if "no history" in record.getMessage()]
    assert lines == [
        f"audit.attacks.sima: it is SimA() at timesteps 50, but earlier audits in {run}/scores were made with SimA() at "
        "timesteps 10, 100: they are no history of it and are left out."
    ]


def test_an_evaluation_keeps_the_checkpoints_networks_and_split(run):
    for override in ("denoiser.batch_size=3", "seed=3", "data.num_members=10", "data.group_column=x"):
        with pytest.raises(UserError, match=re.escape(override.partition("=")[0])):
            cli.evaluate([f"ckpt={last(run)}", override])


def test_the_checkpoint_loads_without_running_anything_in_it(run):
    checkpoint = torch.load(last(run), weights_only=True)
    assert set(checkpoint[RECORD]) >= {"config", "split", "codec", "denoiser", "content_hash", "version"}


def test_the_same_seed_gives_the_same_run_beside_the_first_and_another_seed_another(run, tmp_path, capsys):
    before = (run / "metrics.csv").read_bytes()
    assert cli.train(arguments(run.parent, DISTORTION, "trainer.max_epochs=2")) == 0
    again = run.with_name("digits-2")
    assert "digits-2" in capsys.readouterr().out
    shorter = series(again)
    assert shorter == until(2, series(run))
    assert (run / "metrics.csv").read_bytes() == before
    # It may go further, and equals the one that never stopped.
    assert cli.train([f"resume={again}", "trainer.max_epochs=4"]) == 0
    assert series(again) == series(run)
    # Of another seed, the split, the first weights and every draw are others: the first epoch says so.
    assert cli.train(arguments(tmp_path, "seed=1", *SHORT, "autoencoder.max_epochs=1", "trainer.max_epochs=1")) == 0
    assert (
        series(tmp_path / "digits")["autoencoder", 1, "autoencoder/train_loss"]
        != series(run)["autoencoder", 1, "autoencoder/train_loss"]
    )


def test_resuming_a_finished_run_audits_it_again_and_shows_its_table(run, capsys, monkeypatch):
    before, audited = series(run), []
    monkeypatch.setattr("ldm_privacy.recipes.train.train._conclude", lambda *arguments: audited.append(arguments[3]))
    assert cli.train([f"resume={run}"]) == 0
    found = audited[0].report.series()
    assert {name: before["denoiser", 4, name] for name in found} == found
    assert "memorization/sima_calibrated/all/auroc" in found
    monkeypatch.undo()
    assert cli.train([f"resume={run}"]) == 0
    assert "sima/top60" in capsys.readouterr().out
    assert series(run) == before


def test_a_resumed_run_may_audit_more_samples_and_looks_back_on_audits_that_have_them_all(tmp_path):
    few = [
        "data.num_members=80",
        "data.num_heldout=80",
        "audit.max_samples=60",
        "trainer.max_epochs=2",
        "watch={loss_gap: null}",
    ]
    cli.train(arguments(tmp_path, *SHORT, "autoencoder.max_epochs=0", *few))
    assert cli.train([f"resume={tmp_path}/digits", "audit.max_samples=null", "trainer.max_epochs=6"]) == 0
    found = series(tmp_path / "digits")
    fitted = {
        epoch: {name for _, when, name in found if when == epoch and "/sima_history/all/half1/" in name} for epoch in (2, 4, 6)
    }
    names = {f"calibration/sima_history/all/half1/{name}" for name in ("now", "audit-1")}
    assert fitted == {2: names, 4: set(), 6: names}, "the audits of 60 a side know nothing of the others"
    assert cli.evaluate([f"ckpt={last(tmp_path / 'digits')}", f"out={tmp_path}/out"]) == 0
    numbers = numbers_of(tmp_path / "out")["series"]
    assert numbers == {name: found["denoiser", 6, name] for name in numbers}
    assert "memorization/sima_history/all/auroc" in numbers


def test_a_resumed_run_keeps_its_config(run):
    with pytest.raises(UserError, match=r"'denoiser\.learning_rate' can't be changed here"):
        cli.train([f"resume={run}", "denoiser.learning_rate=1"])


@pytest.mark.parametrize(
    ("stored", "edited", "key"),
    [
        (
            "learning_rate: 0.001\n  weight_decay: 0.0001",
            "learning_rate: 0.002\n  weight_decay: 0.0001",
            "denoiser.learning_rate",
        ),
        ("train_on: public", "train_on: all", "autoencoder.train_on"),
        ("num_members: 40", "num_members: 41", "data.num_members"),
        ("channel_map: scaling_factor", "channel_map: none", "denoiser.channel_map"),
        ("name: digits", "name: digits\nseed: 3", "seed"),
    ],
)
def test_a_config_that_was_edited_in_the_run_folder_is_refused(run, stored, edited, key):
    config = run / "config.yaml"
    text, curves = config.read_text(), (run / "metrics.csv").read_bytes()
    assert stored in text
    try:
        config.write_text(text.replace(stored, edited))
        with pytest.raises(UserError, match=rf"^resume: config\.yaml has {re.escape(key)}=") as caught:
            cli.train([f"resume={run}"])
        assert len(str(caught.value).splitlines()) == 1
        assert (run / "metrics.csv").read_bytes() == curves
    finally:
        config.write_text(text)


def test_other_pixels_under_the_same_rows_are_refused(run, monkeypatch):
    from ldm_privacy.data import bounded as module

    decode = module.decode_image
    monkeypatch.setattr(module, "decode_image", lambda cell, **options: decode(cell, **options).roll(1, -1))
    message = r"data\.source: these are not the images that .*last\.ckpt was trained and audited on: hash [0-9a-f]{12}, not "
    for command in (lambda: cli.train([f"resume={run}"]), lambda: cli.evaluate([f"ckpt={last(run)}"])):
        with pytest.raises(UserError, match=message):
            command()


@pytest.fixture
def copied(run, tmp_path):
    """A run's folder, which a test may change."""
    shutil.copytree(run, tmp_path / "copied")
    return tmp_path / "copied"


def test_another_split_is_refused_with_the_difference(copied):
    file, before = copied / "split.npz", (copied / "metrics.csv").read_bytes()
    split = Split.load(file)
    members, heldout = split.member_index.clone(), split.heldout_index.clone()
    members[:3], heldout[:3] = split.heldout_index[:3], split.member_index[:3]
    other = Split(members, heldout, split.public_index, split.num_rows)
    other.save(file)
    message = rf"split\.npz holds split {other.hash[:12]}, but .*last\.ckpt {split.hash[:12]}: 3 members differ: rows .*"
    with pytest.raises(UserError, match=message + "3 held-out differ") as caught:
        cli.train([f"resume={copied}"])
    assert len(str(caught.value).splitlines()) == 1
    assert (copied / "metrics.csv").read_bytes() == before


def test_a_run_takes_its_data_from_another_place_as_long_as_they_are_the_same(copied, tmp_path, capsys):
    Digits().open().save_to_disk(str(tmp_path / "moved"))
    before = series(copied)
    moved = ["data.source.class=saved", f"data.source.path={tmp_path}/moved"]
    assert cli.train([f"resume={copied}", *moved]) == 0
    assert series(copied) == before
    assert f"path: {tmp_path}/moved" in (copied / "config.yaml").read_text()
    assert cli.train([f"resume={copied}", "dry_run=true"]) == 0, "the new place is the run's own from then on"


def test_a_run_refuses_other_data_and_names_both(copied, tmp_path):
    digits = Digits().open()
    first, *others = Checkpoint.read(copied / "checkpoints" / "last.ckpt").split.member_index.tolist()
    rows = list(range(len(digits)))
    rows[first] = others[0]  # one member is another image
    digits.select(rows).flatten_indices().save_to_disk(str(tmp_path / "others"))
    config = (copied / "config.yaml").read_bytes()
    named = ["data.source.class=saved", f"data.source.path={tmp_path}/others"]
    message = (
        rf"hash [0-9a-f]{{12}}, not [0-9a-f]{{12}} .*; now from class=saved path={tmp_path}/others, then from class=digits\."
    )
    for dry_run in ("true", "false"):
        with pytest.raises(UserError, match=message) as caught:
            cli.train([f"resume={copied}", *named, f"dry_run={dry_run}"])
        assert len(str(caught.value).splitlines()) == 1
    assert (copied / "config.yaml").read_bytes() == config


def test_a_run_goes_on_with_all_its_weights_alone(copied):
    checkpoint = torch.load(last(copied), weights_only=True)
    del checkpoint["current_model_state"]["network.conv_in.bias"]
    torch.save(checkpoint, last(copied))
    for dry_run in ("true", "false"):
        with pytest.raises(
            UserError, match=r"last\.ckpt: its weights \(current_model_state\) .*1 weights are missing, the first"
        ):
            cli.train([f"resume={copied}", f"dry_run={dry_run}"])


def test_a_warm_up_that_is_interrupted_goes_on(tmp_path):
    options = ["denoiser.warmup_steps=8", "autoencoder.max_epochs=0", *SHORT]
    cli.train(arguments(tmp_path / "whole", *options))
    cli.train(arguments(tmp_path / "cut", *options, "trainer.max_epochs=2"))
    assert cli.train([f"resume={tmp_path}/cut/digits", "trainer.max_epochs=4"]) == 0
    assert series(tmp_path / "cut" / "digits") == series(tmp_path / "whole" / "digits")


@pytest.mark.slow
def test_a_run_goes_on_with_other_settings_of_its_steps_and_back(tmp_path, traced):
    plain, fast = (
        ["trainer.compile=none", "trainer.channels_last=false"],
        ["trainer.compile=default", "trainer.channels_last=true"],
    )
    short = [*SHORT, "autoencoder.max_epochs=0"]
    short += ["denoiser.network.block_out_channels=[8]", "denoiser.batch_size=20"]  # one graph to trace
    cli.train(arguments(tmp_path, *short, *fast, "trainer.max_epochs=2"))
    there = tmp_path / "digits"
    names = list(Checkpoint.read(last(there)).parts["state_dict"])
    assert not any("_orig_mod" in name for name in names)
    for epochs, settings in ((4, plain), (6, fast)):
        assert cli.train([f"resume={there}", *settings, f"trainer.max_epochs={epochs}"]) == 0
        checkpoint = Checkpoint.read(last(there)).parts
        assert list(checkpoint["state_dict"]) == list(checkpoint["current_model_state"]) == names
    assert {epoch for _, epoch, name in series(there) if name == "denoiser/train_loss"} == {1, 2, 3, 4, 5, 6}
    modes, _ = traced
    assert modes == ["default", "default"]
    assert cli.evaluate([f"ckpt={last(there)}", f"out={tmp_path}/out"]) == 0


class Killed(Exception):
    """A kill -9 as far as the files are concerned: nothing more is stored."""


def kill_at(monkeypatch, module, step):
    original = module.loss

    def killed(self, indices):
        if self.global_step == step:
            raise Killed
        return original(self, indices)

    monkeypatch.setattr(module, "loss", killed)


def test_a_run_that_is_killed_in_the_autoencoder_goes_on_to_the_same_curves(run, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, AutoencoderModule, 3)  # in its second epoch
        with pytest.raises(Killed):
            cli.train(arguments(tmp_path, DISTORTION))
    assert ("autoencoder", 1, "autoencoder/train_loss") in series(tmp_path / "digits")
    assert cli.train([f"resume={tmp_path}/digits"]) == 0
    assert series(tmp_path / "digits") == series(run)


def test_a_damaged_autoencoder_is_named_and_written_again_once_it_is_deleted(run, copied):
    """As after a stop between the stages: the autoencoder is done, and the denoiser has no checkpoint yet."""
    last(copied).unlink()
    path = copied / "autoencoder" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match=rf"^resume: {path}: can't be read, .* Delete {path.parent}: it is written again\.$"):
        cli.train([f"resume={copied}"])
    shutil.rmtree(path.parent)
    assert cli.train([f"resume={copied}", "trainer.max_epochs=2"]) == 0
    assert series(copied) == until(2, series(run))


def test_a_run_that_is_killed_in_mid_epoch_goes_on_from_the_checkpoint_by_time(tmp_path):
    hour = count(0, 7200)  # a clock that is two hours later at every look
    clock = SimpleNamespace(monotonic=lambda: next(hour))
    short = [*SHORT, "autoencoder.max_epochs=0", "denoiser.batch_size=1", "denoiser.ema_decay=0.99", "trainer.max_epochs=2"]
    assert cli.train(arguments(tmp_path, *short, "name=whole")) == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ldm_privacy.callbacks.checkpoints.time", clock)
        kill_at(patch, DenoiserModule, 65)
        with pytest.raises(Killed):
            cli.train(arguments(tmp_path, *short))
    there = tmp_path / "digits"
    stored = Checkpoint.read(last(there))
    assert (stored.parts["global_step"], stored.epoch) == (61, 1)
    assert Checkpoint.read(there / "checkpoints" / "before-onset.ckpt").parts["global_step"] == 0
    assert cli.train([f"resume={there}"]) == 0
    assert series(there) == series(tmp_path / "whole")


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path, monkeypatch):
    original = DenoiserModule.loss

    def poisoned(self, indices):
        losses = original(self, indices)
        if self.current_epoch == 2:
            losses["loss"] = losses["loss"] * float("nan")
        return losses

    monkeypatch.setattr(DenoiserModule, "loss", poisoned)
    with pytest.raises(UserError, match=r"loss is nan in epoch 3, step \d+: lower denoiser.learning_rate. .*last\.ckpt"):
        cli.train(arguments(tmp_path, *SHORT, "autoencoder.max_epochs=0"))
    checkpoint = Checkpoint.read(last(tmp_path / "digits"))
    assert all(value.isfinite().all() for value in checkpoint.parts["state_dict"].values())
    monkeypatch.setattr(DenoiserModule, "loss", original)
    assert cli.train([f"resume={tmp_path}/digits"]) == 0
    assert {epoch for _, epoch, name in series(tmp_path / "digits") if name == "denoiser/train_loss"} == {1, 2, 3, 4}


def wait_for(process: subprocess.Popen, reached) -> None:
    """Until `reached()` is true."""
    deadline = time.monotonic() + 120
    while not reached():
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.02)
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline


def start(folder: Path) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "train.py"), *arguments(folder, DISTORTION)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder, env=environment)


@pytest.mark.parametrize(
    ("stage", "epoch"),
    [
        ("autoencoder", 1),
        ("denoiser", 0),
        ("denoiser", 1),
        ("denoiser", 3),
    ],
    ids=str,
)
@pytest.mark.slow  # to files, the same as `Killed` above
def test_a_killed_process_goes_on_to_the_same_curves(run, tmp_path, stage, epoch):
    there = tmp_path / "digits"
    process = start(tmp_path)
    wait_for(process, lambda: f"{stage},{epoch}," in _text(there / "metrics.csv"))
    process.kill()
    process.communicate()
    assert cli.train([f"resume={there}"]) == 0
    assert series(there) == series(run)
    assert scores_of(there) == scores_of(run)


@pytest.mark.slow  # as a process; the lock, an interrupt in the process and their laws are tested by themselves
def test_a_run_has_one_writer_and_ctrl_c_stores_a_checkpoint_and_prints_how_to_go_on(run, tmp_path, capsys):
    folder = tmp_path / "my [new] runs"  # what a terminal or a shell would take for something else
    folder.mkdir()
    there = folder / "digits"
    process = start(folder)
    wait_for(process, lambda: "denoiser,1," in _text(there / "metrics.csv"))
    process.send_signal(signal.SIGSTOP)  # it can't end by itself, and it writes to its folder
    before = (there / "metrics.csv").read_bytes()
    with pytest.raises(UserError, match=rf"digits: process {process.pid} on \S+ has been writing to it since "):
        cli.train([f"resume={there}", "trainer.max_epochs=9"])
    assert cli.train([f"resume={there}", "dry_run=true"]) == 0  # a reader
    assert (there / "metrics.csv").read_bytes() == before
    process.send_signal(signal.SIGCONT)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 130, output
    assert "Traceback" not in output
    command = shlex.split(output.splitlines()[-1])
    assert command == ["python", str(ROOT / "train.py"), f"resume={there}"]
    capsys.readouterr()
    assert cli.train(command[2:]) == 0
    assert series(there) == series(run)
    assert scores_of(there) == scores_of(run)
    commands = [shlex.split(line) for line in capsys.readouterr().out.splitlines() if "evaluate" in line]
    assert commands[-1] == ["ldm-privacy", "evaluate", f"ckpt={last(there)}"]


def scores_of(run: Path) -> dict[str, bytes]:
    """The files that every audit left."""
    files = {path.name: path.read_bytes() for path in (run / "scores").iterdir()}
    assert sorted(files) == [f"epoch-{epoch}.safetensors" for epoch in (0, 2, 4)]
    return files


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def test_a_run_that_goes_on_drops_the_rows_and_the_scores_after_its_checkpoint(run, tmp_path):
    there = RunFolder(tmp_path)
    there.checkpoints.mkdir()
    there.last.write_bytes(last(run).read_bytes())  # of epoch 4
    history = ScoreHistory(there.scores, Provenance("", 0, {}, {}))
    for epoch in (2, 4, 5, 6):
        SeriesFile(there.metrics).write("denoiser", epoch, {"x": 1.0})
        history.write(epoch, KeptScores(torch.arange(2), {}, {}, {AuditKey("sima", "all"): torch.rand(2)}))
    Fitting(None, there, [], history).resume_point(there.last, "denoiser")
    assert [epoch for epoch, _ in SeriesFile(there.metrics).read("denoiser")] == [2, 4]
    assert sorted(path.stem for path in there.scores.iterdir()) == ["epoch-2", "epoch-4"]


def test_two_runs_make_a_frontier(run, tmp_path):
    """Two real folders that differ in their quality alone: the same line, so no difference where quality is equal."""
    folders = [shutil.copytree(run, tmp_path / name) for name in ("plain", "other")]
    for folder, gain in zip(folders, (0.0, 0.2)):
        for epoch, value in ((0, 0.9), (2, 0.5), (4, 0.3)):
            name, value = "quality/kid_random_heldout", value + gain
            series_of_look = {name: value, f"{name}_lower": value - 0.01, f"{name}_upper": value + 0.01}
            SeriesFile(folder / "metrics.csv").write("denoiser", epoch, series_of_look)
    cells = {folder.name: Cell(folder.name, runs=(folder,)) for folder in folders}
    found = read_frontier(cells, tmp_path / "out")
    assert found.trainings["plain"][0].has_ended
    plain, other = (found.trainings[label][0].points for label in ("plain", "other"))
    assert [point.epoch for point in plain] == [0, 2, 4]
    assert [point.attack.auroc for point in plain] == [point.attack.auroc for point in other]
    keys = {key for each in ScoreHistory.found(run / "scores").at(4).parts for key in each}
    assert {AuditKey.of(name.split()[0]) for point in plain for name in point.attack.chosen} <= keys
    gap, (before, last) = found.compared["other"].auroc, [point.attack.auroc.value for point in plain[1:]]
    # both reach .51 + .01: "other" at its last audit, all but .01 of the .2 behind it; "plain" just before its second
    first = plain[0].attack.auroc.value
    mine = before + (last - before) * (0.7 - 0.51) / 0.2
    theirs = first + (before - first) * (0.9 - 0.51) / 0.4
    assert gap.mean.value == pytest.approx(mine - theirs, abs=1e-12)
