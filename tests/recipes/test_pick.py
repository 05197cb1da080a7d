"""`ldm-privacy pick`: what is measured, read and named; exit codes; what is refused."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from ldm_privacy.errors import UserError
from ldm_privacy.evidence.gate import Gate
from ldm_privacy.evidence.limits.auroc import AurocLimit
from ldm_privacy.evidence.limits.copies import CopiesLimit
from ldm_privacy.evidence.limits.tpr import TprLimit
from ldm_privacy.recipes import cli
from ldm_privacy.recipes.pick.command import in_order
from ldm_privacy.recipes.pick.pick import is_of_scores
from ldm_privacy.targets.record import RECORD
from tests.recipes.counting import counted_passes

SMALL = [
    *("audit.attacks={loss: null, pia: null}", "audit.masks={top60: null, random60: null, low60: null, std60: null}"),
    *("audit.calibrations={history: null, gained: null, calibrated: null, combined: null}", "audit.keep_fractions=[]"),
]
NUM_AUDITED, PASSES = 80, 80 * 2
"""Of such an audit, at two timesteps."""


def another(source, path, *, epoch, factor=1.0, record=None):
    """A checkpoint as the same training might have left it at that epoch: other weights of the denoiser."""
    parts = torch.load(source, weights_only=True)
    parts["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"] = epoch
    parts["state_dict"] = {name: value * factor for name, value in parts["state_dict"].items()}
    parts[RECORD] |= record or {}
    torch.save(parts, path)
    return path


@pytest.fixture(scope="module")
def several(run, tmp_path_factory) -> Path:
    """The run with three checkpoints, and nothing measured yet."""
    folder = tmp_path_factory.mktemp("several") / "digits"
    shutil.copytree(run, folder, ignore=shutil.ignore_patterns("store", "evaluation*"))
    last = folder / "checkpoints" / "last.ckpt"
    another(last, folder / "checkpoints" / "early.ckpt", epoch=1, factor=0.5)
    another(last, folder / "checkpoints" / "middle.ckpt", epoch=3, factor=0.9)
    return folder


def picked(*words):
    return cli.main(["pick", *map(str, words), *SMALL])


def found(folder):
    return json.loads((folder / "pick.json").read_text())


def test_all_are_audited_in_order_and_what_the_codec_makes_of_the_images_is_measured_once(several, tmp_path, capsys):
    with counted_passes() as passes:
        assert picked(several / "checkpoints", "gate.auroc=0.99", f"out={tmp_path / 'out'}") == 0
    assert passes.rows["denoiser"] == 3 * PASSES
    assert passes.rows["encoder"] == passes.compressed == NUM_AUDITED
    assert set(passes.encoded.values()) == set(passes.reconstructed.values()) == {1}
    told = found(tmp_path / "out")
    assert [each["name"] for each in told["candidates"]] == ["early", "middle", "last"]
    assert [each["epoch"] for each in told["candidates"]] == [1, 3, 4]
    assert told["named"] == str(several / "checkpoints" / "last.ckpt")
    said = " ".join(capsys.readouterr().out.split())
    assert "autoencoder-last.ckpt: left out: it is of the autoencoder's stage" in said
    assert "before-onset.ckpt: left out: it holds the weights of last.ckpt." in said
    assert "The last safe checkpoint is last (epoch 4): it passes, and so do the 2 before it." in said
    assert f"ldm-privacy evaluate ckpt={several / 'checkpoints' / 'last.ckpt'} gate.auroc=0.99" in said
    assert "The last safe checkpoint" in (tmp_path / "out" / "pick.html").read_text()
    # Another limit asks no network: scores are kept.
    with counted_passes() as passes:
        code = picked(
            several / "checkpoints", "gate.auroc=0.501", f"out={tmp_path / 'out'}", f"gate.junit={tmp_path / 'a.xml'}"
        )
    assert not passes.rows
    again = found(tmp_path / "out")
    assert [each["auroc"] for each in again["candidates"]] == [each["auroc"] for each in told["candidates"]]
    assert again["decision"] == again["candidates"][0]["decision"]
    assert code == {"fail": 1, "undecided": 3}[again["decision"]]
    assert again["named"] is None
    assert (tmp_path / "a.xml").read_text().count("<testsuite ") == 3


def test_what_was_evaluated_is_read_and_is_the_same_as_audited(several, tmp_path):
    last, words = several / "checkpoints" / "last.ckpt", ["gate={auroc: 0.99, attacks: {sima/all: 0.98}, tpr: {0.01: 0.9}}"]
    assert picked(last, *words, f"out={tmp_path / 'audited'}") == 0
    assert cli.evaluate([f"ckpt={last}", f"out={several / 'evaluation'}", *SMALL]) == 0
    with counted_passes() as passes:
        assert picked(last, *words, f"out={tmp_path / 'read'}") == 0
    assert not passes.rows
    assert not (tmp_path / "read" / "last").exists()
    assert found(tmp_path / "read") == found(tmp_path / "audited")
    # The same scores are of no use for other audits, for a file that was written since, or where a keep fraction was chosen.
    later = (several / "evaluation" / "metrics.json").stat().st_mtime + 1000
    for number, (more, touch) in enumerate(((["audit.max_samples=30"], 0), (["gate.attacks.sima=0.97"], 0), ([], 1))):
        if touch:
            os.utime(last, (later, later))
        with counted_passes() as passes:
            picked(last, *words, *more, f"out={tmp_path / str(number)}")
        assert passes.rows["denoiser"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["lora-1000", "lora-100", "lora-200"], ["lora-100", "lora-200", "lora-1000"]),
        (["sd15", "sd15-000020", "sd15-000003"], ["sd15-000003", "sd15-000020", "sd15"]),
        (["final", "step2", "step10"], ["step2", "step10", "final"]),
        (["only"], ["only"]),
        (["a", "b"], None),
        (["a-1", "b-1"], None),
    ],
)
def test_targets_come_in_the_order_of_the_numbers_in_their_names(names, expected, tmp_path):
    paths = [tmp_path / f"{name}.safetensors" for name in names]
    for path in paths:
        path.touch()
    if expected is None:
        with pytest.raises(
            UserError, match=r"their names don't tell which is later; name all of them in the order of training"
        ):
            in_order(paths)
    else:
        assert [path.stem for path in in_order(paths)] == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], r"^name a folder of checkpoints, as in"),
        (["nowhere", "gate.auroc=0.6"], r"^nowhere does not exist; name a folder of checkpoints"),
        (
            ["{empty}", "gate.auroc=0.6"],
            r"empty holds no checkpoints: no \.ckpt or \.safetensors file and no folder of a model",
        ),
        (["{runs}", "gate.auroc=0.6"], r"runs holds whole runs; name the checkpoints of one, such as .*runs/a/checkpoints\.$"),
        (["{model}", "gate.auroc=0.6"], r"model is one model; name a folder that holds several"),
        (["{run}"], r"^gate: there is no limit to pick by; give one, as in gate\.auroc=0\.6\.$"),
        (["{run}", "gate.auroc=0.4"], r"^gate\.auroc: 0\.4 should be greater than 0\.5"),
        (["{run}", "gate.attacks={{secmi: 0.6}}"], r"^gate\.attacks: this audit has no attack 'secmi'"),
        (["{run}", "gate.auroc=0.6", "denoiser.lr=1"], r"^'denoiser\.lr' can't be changed here"),
        (["{run}", "gate.auroc=0.6", "--config", "digits.yaml"], r"^--config: .* is a checkpoint of this program"),
        (["{run}", "gate.auroc=0.6", "reference={run}"], r"^reference: checkpoints of one run are picked from as they are"),
        (["{run}", "gate.auroc=0.6", "layout={run}"], r"^layout: .* is a checkpoint of this program, which takes none"),
        (["{run}", "gate.auroc=0.6", "out={file}"], r"^out: '.*file' is a file, not a folder"),
        (["{file}", "gate.auroc=0.6"], r"file is no checkpoint of this program \(\.ckpt\) and no \.safetensors file"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_loaded(words, message, run, tmp_path, monkeypatch):
    monkeypatch.setattr("ldm_privacy.recipes.cli.finish", None)
    monkeypatch.setattr("torch.load", None)
    (tmp_path / "runs" / "a" / "checkpoints").mkdir(parents=True)
    (tmp_path / "runs" / "a" / "checkpoints" / "last.ckpt").touch()
    for name in ("empty", "model"):
        (tmp_path / name).mkdir()
    for name in ("file", "model/model_index.json"):
        (tmp_path / name).touch()
    places = {name: tmp_path / name for name in ("empty", "model", "runs", "file")} | {"run": run / "checkpoints"}
    with pytest.raises(UserError, match=message) as error:
        cli.main(["pick", *(word.format(**places) for word in words)])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"record": {"content_hash": "0" * 64}},
            r"b\.ckpt is of another run than .*a\.ckpt: other images\. Name the checkpoints",
        ),
        ({"epoch": 4, "factor": 0.7}, r"b\.ckpt is of another run than .*a\.ckpt: other weights at the same step"),
        ("config", r"b\.ckpt is of another run than .*a\.ckpt: another denoiser\.batch_size"),
        ("alone", r"no checkpoint of a denoiser lies there, so there is nothing to pick from"),
        ("no limit", r"^gate: there is no limit to pick by"),
    ],
)
def test_checkpoints_that_are_not_of_one_run_are_refused(run, tmp_path, change, message):
    last, words = run / "checkpoints" / "last.ckpt", ["gate.auroc=0.6"] * (change != "no limit")
    if change == "alone":
        shutil.copy(run / "checkpoints" / "autoencoder-last.ckpt", tmp_path)
    else:
        shutil.copy(last, tmp_path / "a.ckpt")
        config = torch.load(last, weights_only=True)[RECORD]["config"].replace("batch_size: 16", "batch_size: 15")
        if change == "config":
            change = {"record": {"config": config}}
        another(last, tmp_path / "b.ckpt", **{"epoch": 5, **(change if isinstance(change, dict) else {})})
    with pytest.raises(UserError, match=message) as error:
        cli.main(["pick", str(tmp_path), *words])
    assert "\n" not in str(error.value)
    assert not (tmp_path / "pick").exists()


@pytest.mark.parametrize(("attack", "is_there"), [(None, True), ("sima/all", True), ("sima", False), ("sima/tuned", False)])
def test_what_is_held_of_a_named_attack_is_in_a_file_of_scores_under_a_mask_that_was_given(attack, is_there):
    for limit in (AurocLimit(0.6, attack=attack), TprLimit(0.1, target_fpr=0.01, attack=attack)):
        assert is_of_scores(Gate([limit])) is is_there
    assert not is_of_scores(Gate([CopiesLimit(0.1)]))
