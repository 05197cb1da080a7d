"""Denoiser-free controls: two-sided, with words for what they mean."""

import math

import pytest
import torch

from ldm_privacy.controls import denoiser_free_controls, denoiser_free_sentence, influence_score, latent_norm_score
from ldm_privacy.errors import UserError
from ldm_privacy.metrics import auroc_interval
from ldm_privacy.types import Estimate


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_influence_score_is_half_the_log_of_the_product():
    influence = normal(6, 2, 3, 3).square() + 0.1
    torch.testing.assert_close(influence_score(influence), influence.flatten(1).prod(dim=1).log() / 2)
    shift = influence_score(4 * influence) - influence_score(influence)
    torch.testing.assert_close(shift, torch.full_like(shift, 18 * math.log(2)))
    assert influence_score(torch.zeros(1, 2, 3, 3)).isfinite().all()


def test_latent_norm_score_is_the_norm_of_all_dimensions():
    latent = torch.zeros(2, 2, 2, 2)
    latent[0, 0, 0, 0], latent[0, 1, 1, 1] = 3.0, -4.0
    assert latent_norm_score(latent).tolist() == [5.0, 0.0]


def test_controls_are_the_intervals_of_the_metrics_in_order():
    is_member = torch.arange(80) < 40
    scores = {"latent norm": normal(80), "mine": normal(80, seed=1)}
    controls = denoiser_free_controls(scores, is_member, confidence=0.9)
    assert list(controls) == ["latent norm", "mine"]
    assert controls["mine"] == auroc_interval(scores["mine"], is_member, confidence=0.9)
    group = torch.arange(80) // 4
    grouped = denoiser_free_controls(scores, is_member, group=group)
    assert grouped["mine"] == auroc_interval(scores["mine"], is_member, group=group)


def test_a_control_below_one_half_is_named_as_much_as_one_above():
    is_member = torch.arange(400) < 200
    difference = is_member.double() * 2
    scores = {
        "reconstruction error": normal(400) - difference,
        "influence": normal(400, seed=1) * 0 + (torch.arange(400) % 7),
        "latent norm": normal(400, seed=2) + difference,
        "colour": normal(400, seed=3) + difference,
    }
    controls = denoiser_free_controls(scores, is_member)
    assert controls["reconstruction error"].upper < 0.5
    sentence = denoiser_free_sentence(controls)
    assert f"reconstruction error has AUROC {controls['reconstruction error']}: the autoencoder itself leaks" in sentence
    assert "latent norm has AUROC" in sentence
    assert "colour has AUROC" in sentence
    assert "influence has AUROC" not in sentence


def test_the_sentence_when_nothing_tells():
    controls = {name: Estimate(0.51, 0.45, 0.57) for name in ("reconstruction error", "influence", "latent norm")}
    assert "no difference was found" in denoiser_free_sentence(controls)
    assert "reconstruction error, influence and latent norm include 0.5" in denoiser_free_sentence(controls)
    assert denoiser_free_sentence({}) == "No denoiser-free control was computed."
    assert "leaks" not in denoiser_free_sentence({"influence": Estimate(0.55, 0.5, 0.6)})


def test_bad_input():
    score = normal(10)
    score[3] = float("nan")
    with pytest.raises(UserError, match="sample 3"):
        denoiser_free_controls({"influence": score}, torch.arange(10) < 5)
