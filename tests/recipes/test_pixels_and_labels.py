"""Other targets than an unconditional latent one train, audit, evaluate and go on: pixel space, class labels, captions."""

import csv
import json
from types import SimpleNamespace

import pytest
import torch

from ldm_privacy.attacks.base import get_attack
from ldm_privacy.config import compose
from ldm_privacy.errors import UserError
from ldm_privacy.recipes import cli
from ldm_privacy.recipes.audit import check_content, condition_record
from ldm_privacy.recipes.run_setup import RunSetup
from ldm_privacy.recipes.terminal import progress
from ldm_privacy.registry import ATTACKS
from ldm_privacy.targets.checkpoint import target_of_checkpoint
from ldm_privacy.targets.record import Checkpoint
from tests.pages import text_of
from tests.tiny import PIXELS, arguments, series, settings

SHORT = [
    "autoencoder.max_epochs=1",
    "audit.attacks={loss: null}",
    "watch.samples={class: samples, num_images: 2, num_steps: 2}",
]
WITHOUT_INFLUENCE = "audit.masks={top60: null, low60: null}"
FEW = {
    "dime": "{class: dime, num_draws: 2}",
    "pfami": "{class: pfami, num_crops: 1, timesteps: [100]}",
    "sima_mc": "{class: sima_mc, num_draws: 2}",
    "sima_mc_of_mean": "{class: sima_mc_of_mean, num_draws: 2}",
}
UNTOLD = [name for name in ATTACKS if not get_attack(name).views]
EVERY_ATTACK = f"audit.attacks={{{', '.join(f'{name}: {FEW.get(name, name)}' for name in UNTOLD)}}}"
DIT = [f"denoiser.network.{each}" for each in ("class=dit", "width=16", "num_layers=1", "num_heads=2", "dropout=0.1")]
TRAJECTORIES = "watch.trajectories={class: trajectories, num_captions: 4, num_steps: 3, num_seeds: 1, every: {epochs: 2}}"
LABELS = ["denoiser.condition=labels", "denoiser.prediction_type=v_prediction", *DIT]
ATTENDING = [
    f"denoiser.network.{each}"
    for each in ("class=unet_condition", "block_out_channels=[8,8]", "norm_num_groups=4", "num_heads=2", "layers_per_block=1")
]
CAPTIONS = ["denoiser.condition={class: captions, max_tokens: 8}", *ATTENDING]


@pytest.mark.parametrize(
    ("options", "facts"),
    [
        (
            [*PIXELS, WITHOUT_INFLUENCE, EVERY_ATTACK, "audit.timesteps=[100]"],
            {"latents": "identity (pixel space)", "condition": "none"},
        ),
        (
            [*LABELS, TRAJECTORIES, "audit.attacks={pia: null, clid: clid, curvature: curvature}"],
            {"condition": "labels"},
        ),
        pytest.param(
            [
                *CAPTIONS,
                "audit.attacks={pia: null, clid: {class: clid, reduction: thirds}}",
                "audit.masks={low60: null, std60: null}",
            ],
            {"condition": "captions"},
            marks=pytest.mark.slow,  # the longest; test_finetune.py trains with captions too
        ),
    ],
    ids=["pixels", "labels", "captions"],
)
def test_it_trains_evaluates_to_the_last_audit_and_goes_on_as_if_it_had_not_stopped(tmp_path, options, facts):
    line = [*SHORT, *options]
    assert cli.train(arguments(tmp_path, *line)) == 0
    run = tmp_path / "digits"
    curves = series(run)
    assert cli.evaluate([f"ckpt={run}/checkpoints/last.ckpt"]) == 0
    metrics = json.loads((run / "evaluation" / "metrics.json").read_text())
    assert 0 < metrics["controls"]["image complexity"]["auroc"]["value"] < 1
    evaluated = metrics["series"]
    logged = {name: value for (stage, epoch, name), value in curves.items() if (stage, epoch) == ("denoiser", 4)}
    assert {name: logged[name] for name in evaluated} == evaluated
    assert "memorization/sima/random60/auroc" in evaluated
    if in_pixels := PIXELS[0] in options:
        for name in UNTOLD:
            masks = ("all", "random60", "std60") if get_attack(name).maskable else ("all",)
            assert all(0 <= logged[f"memorization/{name}/{mask}/auroc"] <= 1 for mask in masks)
        page = text_of((run / "evaluation" / "report.html").read_text())
        assert "Pixel space: the denoiser sees the images themselves." in page
        assert "none: pixel space" in page
        assert "What calibrations gain" in page
        assert not (run / "autoencoder").exists()
        with pytest.raises(UserError, match=r"^geometry\.distortion_rank: the codec 'identity' has no decoder .* use"):
            cli.evaluate([f"ckpt={run}/checkpoints/last.ckpt", "geometry.distortion_rank=2", f"out={tmp_path}/out"])
    if TRAJECTORIES in options:
        with (run / "evaluation" / "captions.csv").open(newline="") as file:
            d1 = [float(row["d1"]) for row in csv.DictReader(file) if row["group"] == "members"]
        assert sum(d1) / 4 == pytest.approx(logged["trajectory/g7.5/d1/members"])

    assert cli.train(arguments(tmp_path, *line, "trainer.max_epochs=2", "name=cut")) == 0
    assert cli.train([f"resume={tmp_path}/cut", "trainer.max_epochs=4"]) == 0
    assert series(tmp_path / "cut") == curves

    target = target_of_checkpoint(Checkpoint.read(run / "checkpoints" / "last.ckpt"))
    assert facts.items() <= target.facts.items()
    measured = {name for _, epoch, name in curves if name.startswith(("geometry/", "baseline/", "memorization/sima/tuned"))}
    assert bool(measured) is not in_pixels
    # Each class, the null class too, has an embedding of its own, and each caption's counts; without a condition there is none.
    latent = torch.zeros(11, *((1, 8, 8) if in_pixels else (4, 4, 4)))
    told = {"labels": {"class_labels": torch.arange(11)}, "captions": {"encoder_hidden_states": torch.randn(11, 8, 64)}}
    condition = told.get(facts["condition"], {})
    epsilon = target.predictor(latent, torch.full((11,), 500), condition)
    assert (epsilon[1:] != epsilon[:1]).flatten(1).any(1).all() == bool(condition)


@pytest.mark.parametrize(
    ("entry", "overrides", "epochs"),
    [
        ("digits_pixels.yaml", [], 0),
        ("digits_pixels.yaml", ["autoencoder.max_epochs=3"], 3),  # refused later, by its key
        ("digits.yaml", [], 20),
        ("digits.yaml", ["autoencoder.max_epochs=null"], 120),
        ("digits.yaml", ["autoencoder.max_epochs=null", "autoencoder.network={class: pretrained, path: gone}"], 120),
    ],
)
def test_stage_1_is_skipped_where_there_is_nothing_to_train(entry, overrides, epochs):
    setup = RunSetup(compose(entry, overrides).config, progress)
    assert setup.codec_epochs == epochs
    assert (setup.facts["autoencoder"] == "not trained here") is (epochs == 0)


def test_images_with_other_labels_are_not_those_of_the_checkpoint():
    setup = RunSetup(compose("digits.yaml", settings("denoiser.condition=labels")).config, progress)
    denoiser = SimpleNamespace(condition=condition_record(setup))
    content_hash = setup.data.duplicates.content_hash
    checkpoint = SimpleNamespace(path="a.ckpt", stage="denoiser", content_hash=content_hash, denoiser=denoiser)
    check_content(setup, checkpoint)
    setup.data._label = 9 - setup.data._label
    with pytest.raises(UserError, match=r"^data\.source: what the denoiser is told of these images is not what a\.ckpt"):
        check_content(setup, checkpoint)
