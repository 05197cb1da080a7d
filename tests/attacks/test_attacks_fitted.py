"""What is fitted on calibration samples: DIME's settings."""

import math

import pytest
import torch
from sklearn.metrics import roc_auc_score

from ldm_privacy import randomness
from ldm_privacy.attacks.base import get_attack, membership_scores
from ldm_privacy.attacks.dime import NUM_ANGLES, fit_dime
from ldm_privacy.attacks.runner import attack_statistics
from ldm_privacy.errors import UserError
from ldm_privacy.testing import CountingPredictor

TIMESTEPS = [10, 50, 100]


@pytest.fixture
def samples():
    index = torch.arange(60)
    is_member = index < 30
    latent = randomness.normal("latent", (index,), (1, 4, 4)).double()
    # Members are a little smaller, so that their predicted noise is, too.
    return latent * torch.where(is_member, 0.9, 1.0)[:, None, None, None], is_member


def dime_auroc(samples, attack, timestep, keep):
    latent, is_member = samples
    statistics = attack_statistics(attack, CountingPredictor((1, 4, 4)), latent, [timestep], keep[None])
    return roc_auc_score(is_member, membership_scores(attack, statistics)[0, 0])


@pytest.mark.parametrize("masked", [False, True])
def test_dime_is_fitted_to_the_best_candidate(samples, masked):
    latent, is_member = samples
    keep = randomness.uniform("keep", (torch.arange(60),), (1, 4, 4)) < (0.5 if masked else 1.0)
    fit = fit_dime(CountingPredictor((1, 4, 4)), latent, is_member, TIMESTEPS, keep_mask=keep, gammas=(0.5, 1.0), num_draws=3)
    assert fit.timestep in TIMESTEPS
    assert fit.auroc == pytest.approx(dime_auroc(samples, fit.attack, fit.timestep, keep), abs=1e-12)
    for timestep in TIMESTEPS:
        for gamma in (0.5, 1.0):
            for phi in (0.0, math.pi / 2):  # B2 alone and V alone are among the candidates
                single = get_attack("dime", gamma=gamma, phi=phi, num_draws=3)
                area = dime_auroc(samples, single, timestep, keep)
                assert fit.auroc >= max(area, 1 - area) - 1e-12


def test_dime_finds_the_orientation(samples):
    latent, is_member = samples
    fits = [
        fit_dime(CountingPredictor((1, 4, 4)), latent, labels, TIMESTEPS, gammas=[1.0], num_draws=2)
        for labels in (is_member, ~is_member)
    ]
    assert fits[0].attack.higher_means_member != fits[1].attack.higher_means_member
    assert fits[0].auroc == fits[1].auroc > 0.5
    assert (fits[0].attack.phi, fits[0].timestep) == (fits[1].attack.phi, fits[1].timestep)


@pytest.mark.parametrize("num_angles", [1, 5, NUM_ANGLES])
def test_dimes_choice_is_the_best_of_evenly_spaced_angles(num_angles):
    generator = torch.Generator().manual_seed(3)
    energy, divergence = torch.randn(2, 3, 40, generator=generator, dtype=torch.float64) * torch.tensor([[[50.0]], [[0.2]]])
    is_member = torch.arange(40) % 2 == 0
    candidates = []
    for place in range(3):
        spreads = float(energy[place].std()), float(divergence[place].std())
        for number in range(num_angles):
            angle = math.pi * number / num_angles - math.pi / 2
            phi = math.atan2(math.sin(angle) * spreads[0], math.cos(angle) * spreads[1])
            score = math.cos(phi) * energy[place] + math.sin(phi) * divergence[place]
            area = float((score[is_member][:, None] > score[~is_member]).double().mean())
            candidates.append((max(area, 1 - area), area > 0.5, phi, TIMESTEPS[place]))
    best = max(candidates, key=lambda candidate: candidate[0])
    dime = get_attack("dime", gamma=0.3, num_draws=4)
    fit = dime.fitted((energy, divergence), is_member, TIMESTEPS, num_angles=num_angles)
    assert (fit.attack.higher_means_member, fit.timestep) == (best[1], best[3])
    assert (fit.auroc, fit.attack.phi) == pytest.approx((best[0], best[2]), rel=1e-12)
    assert (fit.attack.gamma, fit.attack.num_draws) == (0.3, 4)
    if num_angles == NUM_ANGLES:  # as many as are tried where nothing is said
        for other in (
            dime.fitted((energy, divergence), is_member, TIMESTEPS).attack,
            dime.calibrated((energy, divergence), is_member),
        ):
            assert vars(other) == vars(fit.attack)


def test_where_no_angle_tells_the_sides_apart_dime_takes_the_first_and_lower_means_member():
    constant = torch.ones(2, 6, dtype=torch.float64)
    fit = get_attack("dime").fitted((constant, constant), torch.arange(6) < 3, [10, 20])
    assert (fit.timestep, fit.auroc, fit.attack.higher_means_member) == (10, 0.5, False)


def test_fitting_dime_takes_all_dimensions_four_gammas_and_ten_draws_where_nothing_is_said(samples):
    latent, is_member = samples
    predictor = CountingPredictor((1, 4, 4))
    fit = fit_dime(predictor, latent, is_member, [100])
    assert predictor.num_rows == 4 * 11 * 60
    keep = torch.ones_like(latent, dtype=torch.bool)
    gammas = [
        fit_dime(
            CountingPredictor((1, 4, 4)), latent, is_member, [100], keep_mask=keep, gammas=[gamma], num_draws=10, num_angles=64
        )
        for gamma in (0.25, 0.5, 1.0, 2.0)
    ]
    assert [fit.attack.gamma for fit in gammas] == [0.25, 0.5, 1.0, 2.0]
    best = max(gammas, key=lambda fit: fit.auroc)
    assert (vars(fit.attack), *fit[1:]) == (vars(best.attack), *best[1:])


def test_fitting_dime_is_told_the_samples_and_the_seed(samples):
    latent, is_member = samples
    options = {"sample_index": torch.arange(60) + 7, "seed": 4}
    predictor = CountingPredictor((1, 4, 4))
    fit = fit_dime(predictor, latent, is_member, TIMESTEPS, gammas=[1.0], num_draws=2, **options)
    single = fit_dime(predictor, latent, is_member, [100], gammas=[1.0], num_draws=1, num_angles=1)
    assert single.attack.phi == pytest.approx(-math.pi / 2), "the first angle is a quarter turn back"
    keep_masks = torch.ones(1, *latent.shape, dtype=torch.bool)
    score = membership_scores(
        fit.attack, attack_statistics(fit.attack, predictor, latent, [fit.timestep], keep_masks, **options)
    )
    assert fit.auroc == pytest.approx(roc_auc_score(is_member, score[0, 0]), abs=1e-12)


def test_dime_without_candidates(samples):
    with pytest.raises(UserError, match="no gammas"):
        fit_dime(CountingPredictor((1, 4, 4)), *samples, TIMESTEPS, gammas=[])
