"""The examples of docs/howto in whole runs: trained, stopped, resumed and evaluated as plug-ins from outside the package."""

import json
import re
import runpy
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

import evaluate
import train
from ldm_privacy.data.module import ImageData
from ldm_privacy.data.sources import Digits
from ldm_privacy.errors import UserError
from ldm_privacy.geometry.exact import ExactInfluence
from ldm_privacy.metrics import auroc
from ldm_privacy.registry import DENOISERS
from ldm_privacy.targets.door import open_target
from ldm_privacy.targets.record import Checkpoint
from tests.howto.conftest import commands, overrides
from tests.tiny import TINY, series
from tests.undrawn import undrawn

NETWORKS = ("autoencoder.network.", "denoiser.network.", "geometry.influence.")
FEW = [*(item for item in TINY if not item.startswith(NETWORKS)), "audit.keep_fractions=[0.5,1.0]"]
SMALL_UNET = [item for item in TINY if item.startswith("denoiser.network.")]
SMALL_KL = [item for item in TINY if item.startswith("autoencoder.network.")]


CARELESS = """
from pathlib import Path

from my_codec import DCT
from my_denoiser import ConvNet
import my_watcher

from ldm_privacy.attacks.base import UnmaskableAttack
from ldm_privacy.registry import ATTACKS, CODECS, DENOISERS


@DENOISERS.register("with_a_path")
class WithPath(ConvNet):
    def __init__(self, *, latent_channels: int, folder: Path):
        super().__init__(latent_channels=latent_channels)


@CODECS.register("misnamed")
class Misnamed(DCT):
    name = "dct_2"


@ATTACKS.register("norm")
class Norm(UnmaskableAttack):
    pass
"""


def exactly(values):
    """The same as text: what is not a number is equal to itself, and what is one to the last digit."""
    return {name: repr(float(value)) for name, value in values.items()}


def line(name, place=0):
    """A `train.py` command of a page."""
    return commands(f"{name}.md")[place]


LATENT = (
    "attack",
    "calibration",
    "mask_rule",
    "influence_estimator",
    "loss",
    "image_source",
    "logger",
    "control",
    "requirement",
    "report_section",
)
OUTSIDE = [*overrides(*map(line, LATENT), line("codec", 2)), *SMALL_KL, *SMALL_UNET]
WHITE = overrides(line("condition"), line("channel_map"), line("codec"), line("watcher"))


@pytest.fixture(scope="module")
def without_figures():
    with undrawn() as patch:
        patch.setattr("ldm_privacy.recipes.train.baselines.geometry_figures", lambda *arguments, **options: {})
        yield


def trained(desk, name, *items):
    assert train.main(["--config", "digits.yaml", *FEW, f"name={name}", *items]) == 0
    return desk / "runs" / name


def evaluated(run, *items):
    """The numbers of an evaluation, and what it wrote."""
    assert evaluate.main([f"ckpt={run}/checkpoints/last.ckpt", *items]) == 0
    newest = max(run.glob("evaluation*"), key=lambda path: path.stat().st_mtime_ns)
    return json.loads((newest / "metrics.json").read_text()), (newest / "report.html").read_text(), newest.name


@pytest.fixture(scope="module")
def digits():
    """The images of every run here."""
    return ImageData(Digits(), resolution=8, channels=1, num_members=40, num_heldout=40, num_public=64, seed=0)


@pytest.fixture(scope="module")
def outside(desk, without_figures):
    """A run in which everything is a plug-in that can be one beside a trained autoencoder."""
    scans = np.concatenate([np.asarray(row["image"])[None] for row in Digits().open()])
    np.savez(desk / "digits.npz", images=scans, labels=np.asarray(Digits().open()["label"]))
    return trained(desk, "outside", *OUTSIDE, "trainer.max_epochs=2", "trainer.figures=true")


@pytest.fixture(scope="module")
def white(desk, without_figures):
    """A run on whitened cosines, with a denoiser that is told the brightness; never stopped."""
    return trained(desk, "white", *WHITE)


@pytest.fixture(scope="module")
def evaluation(outside):
    """Of the first run, as its own last words say."""
    return evaluated(outside, OUTSIDE[0])


def test_an_attack_has_every_curve_with_every_mask(outside, evaluation):
    logged = series(outside)
    assert all(
        ("denoiser", epoch, f"memorization/mirror/{mask}/auroc") in logged for epoch in (0, 2) for mask in ("all", "size60")
    )
    rows = {(row["attack"], row["mask"]): row for row in evaluation[0]["rows"]}
    assert {mask for attack, mask in rows if attack == "mirror"} == {mask for attack, mask in rows if attack == "sima"}


def test_a_calibration_stands_beside_the_attack_and_is_an_outsiders(outside, evaluation):
    rows = {(row["attack"], row["mask"]): row for row in evaluation[0]["rows"]}
    assert set(rows["sima_noisiest", "all"]["gains"]) == {"plain"}
    assert {key: evaluation[0]["verdict"][key] for key in ("insider", "outsider")} == {
        "insider": "sima_calibrated/all",
        "outsider": "sima_noisiest/all",
    }
    assert ("denoiser", 0, "calibration/sima_noisiest/all/half2/slope0") in series(outside)


def test_a_requirement_has_its_answer(outside, evaluation):
    answers = json.loads((outside / evaluation[2] / "requirements.json").read_text())["requirements"]
    (own,) = [each for each in answers if each["reference"] == "House rule 7"]
    assert {each["limit"] for each in own["judgements"]} == {"gate.auroc"}


def test_a_mask_keeps_what_it_says_and_is_a_control(evaluation):
    rows = {(row["attack"], row["mask"]): row for row in evaluation[0]["rows"]}
    assert rows["sima", "size60"]["keep_fractions"] == [0.6, 0.6]
    assert set(rows["sima", "top60"]["gains"]) == {"all", "random60", "low60", "std60", "size60"}


def test_an_estimator_measures_the_influence_of_the_runs_codec(outside, digits):
    checkpoint = Checkpoint.read(outside / "checkpoints" / "last.ckpt")
    assert digits.duplicates.content_hash == checkpoint.content_hash, (
        "an image source has other pixels than the digits it holds"
    )
    assert torch.equal(digits.split.member_index, checkpoint.split.member_index)
    codec = checkpoint.codec()
    index = torch.cat([digits.split.member_index, digits.split.heldout_index])
    exact = ExactInfluence()(codec.decode, codec.encode(digits.images(index)), index).influence.mean((0, 2, 3))
    logged = series(outside)
    measured = torch.tensor([logged["denoiser", 0, f"geometry/influence/channel{place}"] for place in range(len(exact))])
    torch.testing.assert_close(measured, exact, rtol=0.02, atol=0)


def test_a_codec_that_builds_on_another_is_itself_after_stage_1(outside):
    codec = open_target(outside / "checkpoints" / "last.ckpt").codec
    assert (type(codec).__name__, codec.name) == ("Clipped", "clipped")
    stored = load_file(outside / "autoencoder" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(stored[name], weight) for name, weight in codec.network.state_dict().items())
    codec.network.decoder.conv_out.bias.fill_(9)
    assert (codec.decode(torch.randn(2, 4, 4, 4)) == 1).all()


def test_a_loss_counts_with_its_weight(outside):
    logged = {name: value for (stage, epoch, name), value in series(outside).items() if (stage, epoch) == ("autoencoder", 2)}
    parts = {"reconstruction": 1.0, "kl": 1e-3, "edges": 0.5}
    total = sum(weight * logged[f"autoencoder/train_{label}"] for label, weight in parts.items())
    assert logged["autoencoder/train_loss"] == pytest.approx(total, rel=1e-5)
    assert logged["autoencoder/train_edges"] > 0


def test_a_logger_gets_every_curve_picture_summary_and_evaluation(outside):
    lines = [json.loads(text) for text in (outside / "curves.jsonl").read_text().splitlines()]
    curves = {}
    for each in lines:
        axis = next((name for name in ("epoch", "autoencoder/epoch") if name in each), None)
        if axis is not None and "picture" not in each:
            stage = "denoiser" if axis == "epoch" else "autoencoder"
            curves |= {(stage, each[axis], name): value for name, value in each.items() if name not in (axis, "step")}
    assert exactly(curves) == exactly(series(outside))
    assert "pictures/reconstructions" in {each.get("picture") for each in lines}
    assert "onset_epoch" in next(each["summary"] for each in lines if "summary" in each)
    assert lines[-1] == {"verdict rests on": "sima/all", "report": "runs/outside/evaluation/report.html"}


def test_a_control_and_a_section_are_in_every_report(outside, digits, evaluation):
    numbers, page, folder = evaluation
    assert folder == "evaluation", "plug-ins that the checkpoint names are no other question"
    score = pd.read_parquet(outside / "evaluation" / "scores.parquet").drop_duplicates("sample_index")
    images = digits.images(torch.tensor(score["sample_index"].to_numpy()))[:, 0]
    sides = (images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1])
    framed = sum((side == images[:, :1, 0]).sum(1) for side in sides).double()
    found = numbers["controls"]["frame"]
    assert found["auroc"]["value"] == float(auroc(framed, torch.tensor(score["is_member"].to_numpy())))
    assert found["attack_above_it"] is not None
    assert ">frame<" in page
    places = re.findall(r'<section[^>]* id="([a-z-]+)"', page)
    assert places.index("curves") < places.index("quantiles") < places.index("images")


@pytest.mark.parametrize("name", ["outside", pytest.param("white", marks=pytest.mark.slow)])
def test_an_evaluation_equals_the_last_audit_exactly(name, request):
    run = request.getfixturevalue(name)
    numbers = request.getfixturevalue("evaluation")[0] if name == "outside" else evaluated(run, WHITE[0])[0]
    last = 2 if name == "outside" else 4
    logged = {name: value for (_, epoch, name), value in series(run).items() if epoch == last}
    assert len(numbers["series"]) > 100
    assert exactly({name: logged[name] for name in numbers["series"]}) == exactly(numbers["series"])


def test_a_checkpoint_is_not_trusted_with_plugins(white, without_figures):
    with pytest.raises(UserError, match=r"its config wants to import my_denoiser,my_condition.*say so with plugins=\["):
        evaluate.main([f"ckpt={white}/checkpoints/last.ckpt"])
    with pytest.raises(UserError, match="its config wants to import"):
        evaluate.main([f"ckpt={white}/checkpoints/last.ckpt", "plugins=[my_codec]"])


def test_an_evaluation_may_name_further_plugins(white, without_figures):
    more = WHITE[0].replace("]", ",my_attack]")
    numbers, _, folder = evaluated(white, more, "audit.attacks=[mirror]", "audit.masks=[all]")
    assert {row["attack"] for row in numbers["rows"]} == {"mirror", "mirror_complexity"}
    assert folder == "evaluation-2"


def test_a_codec_and_a_channel_map_come_out_of_the_checkpoint(white, digits):
    target = open_target(white / "checkpoints" / "last.ckpt")
    images = digits.images(digits.split.member_index)
    latent = target.codec.encode(images)
    assert latent.shape[1:] == (16, 2, 2)
    torch.testing.assert_close(target.codec.decode(latent), images, atol=1e-4, rtol=0)
    covariance = torch.cov(latent.double().transpose(0, 1).flatten(1))
    off = covariance - covariance.diagonal().diag()
    assert off.abs().max() < 1e-3
    assert covariance.diagonal().mean() == pytest.approx(1, abs=1e-3)
    assert "principal, a 16 x 16 matrix" in target.facts["latents"]


def test_the_denoiser_is_told_the_condition(white):
    target = open_target(white / "checkpoints" / "last.ckpt")
    assert target.facts["condition"] == "brightness"
    assert target.facts["denoiser"].startswith("convnet")
    latent, timestep = torch.randn(2, 16, 2, 2), torch.tensor([50, 50])
    dark, bright = (target.predictor(latent, timestep, {"features": torch.tensor([[value, 1.0]] * 2)}) for value in (-1, 1))
    assert not torch.allclose(dark, bright)


def test_a_condition_and_a_denoiser_that_do_not_fit_are_refused_before_training(desk):
    start = ["--config", "digits.yaml", *FEW, "name=refused"]
    told = ["plugins=[my_condition,my_denoiser]", "denoiser.condition=brightness"]
    with pytest.raises(UserError, match="'unet' takes no such condition: it has no argument 'num_features'"):
        train.main([*start, *told, *SMALL_UNET])
    with pytest.raises(UserError, match=r"denoiser\.network\.num_features: it comes from the condition"):
        train.main([*start, *told, "denoiser.network={class: convnet, num_features: 3}"])
    assert not (desk / "runs" / "refused").exists()


def test_what_could_not_be_read_again_or_audited_is_refused_before_training(desk):
    (desk / "careless.py").write_text(CARELESS)
    start = ["--config", "digits.yaml", *FEW, "name=refused", "plugins=[careless]"]
    for items, words in (
        (["denoiser.network={class: with_a_path, folder: here}"], r"denoiser\.network\.folder: a PosixPath can't be stored"),
        (["autoencoder.network={class: misnamed}", "autoencoder.max_epochs=0"], "the codec calls itself 'dct_2'"),
        (
            ["audit={attacks: [norm], masks: [top], onset: {mask: top}}"],
            "the attack 'norm' has no mask: add one that keeps everything",
        ),
        (["watch.memorization.class=drift"], "the label 'memorization' is taken"),
    ):
        with pytest.raises(UserError, match=words):
            train.main([*start, *items])
    assert not (desk / "runs" / "refused").exists()


def test_a_resumed_run_of_plugins_equals_one_that_never_stopped(desk, white, without_figures):
    run = trained(desk, "resumed", *WHITE, "trainer.max_epochs=2")
    assert train.main([f"resume={run}", "trainer.max_epochs=4"]) == 0
    assert exactly(series(run)) == exactly(series(white))
    assert {epoch for _, epoch, name in series(run) if name == "denoiser/drift"} == {2, 4}


def test_the_plan_counts_what_plugins_cost(desk, capsys):
    assert train.main(["--config", "digits.yaml", *FEW, *OUTSIDE, "dry_run=true"]) == 0
    plan = capsys.readouterr().out
    assert re.search(r"influence\W+decoder products\W+10,240", plan)  # 80 samples, two passes for each of 64 dimensions
    assert train.main(["--config", "digits.yaml", *FEW, *WHITE, "dry_run=true"]) == 0
    assert re.search(r"drift, 3 looks\W+denoiser\W+192", capsys.readouterr().out)


def test_a_taken_name_is_told_in_one_line(desk):
    text = 'from ldm_privacy.registry import ATTACKS\n\n@ATTACKS.register("sima")\nclass Mine:\n    pass\n'
    (desk / "clash.py").write_text(text)
    with pytest.raises(UserError, match=r"attack 'sima' is already registered by ldm_privacy\.attacks\.sima"):
        train.main(["--config", "digits.yaml", "plugins=[clash]"])


def test_a_target_of_a_new_kind_is_audited_from_python(desk, monkeypatch, capsys):
    network = {"latent_channels": 1, "latent_size": 8, "block_out_channels": [8, 8], "norm_num_groups": 4}
    folder = desk / "exported"
    folder.mkdir()
    torch.manual_seed(0)
    save_file(DENOISERS.get("unet")(**network).state_dict(), folder / "denoiser.safetensors")
    settings = {"network": {"class": "unet", **network}, "prediction_type": "epsilon", "num_train_timesteps": 1000}
    (folder / "denoiser.json").write_text(json.dumps(settings))
    (words,) = commands("target.md")
    monkeypatch.setattr(sys, "argv", words)
    runpy.run_path(words[0], run_name="__main__")
    (sima, value, lower, upper), loss = (re.findall(r"[\w/.]+", text) for text in capsys.readouterr().out.splitlines())
    assert (sima, loss[0]) == ("sima/all", "loss/all")
    assert float(lower) < 0.5 < float(upper), "an untrained network knows nothing"
    assert float(lower) < float(value) < float(upper)
