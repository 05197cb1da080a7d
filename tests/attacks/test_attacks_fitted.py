"""What is fitted on calibration samples: DIME's settings and the combined attack."""

import math

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ldm_privacy import randomness
from ldm_privacy.attacks.base import get_attack, membership_scores
from ldm_privacy.attacks.combined import CombinedAttack
from ldm_privacy.attacks.dime import fit_dime
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


def test_dime_without_candidates(samples):
    with pytest.raises(UserError, match="no gammas"):
        fit_dime(CountingPredictor((1, 4, 4)), *samples, TIMESTEPS, gammas=[])


@pytest.fixture
def table():
    generator = torch.Generator().manual_seed(0)
    is_member = torch.arange(2000) % 2 == 0
    is_calibration = torch.arange(2000) < 1000
    noise = torch.randn(4, 2000, generator=generator, dtype=torch.float64)
    statistics = {
        "sima": noise[:2] - is_member.double() * torch.tensor([[1.0], [0.5]]),
        "loss": 4000 + 300 * (noise[2:3] - is_member.double()),
        "constant": torch.full((1, 2000), 7.0),
    }
    return statistics, is_member, is_calibration


def test_combined_equals_scikit_learns_pipeline(table):
    statistics, is_member, is_calibration = table
    combined = CombinedAttack(inverse_penalty=0.3).fit(statistics, is_member, is_calibration)
    features = torch.cat(list(statistics.values())).T.numpy()
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=0.3, max_iter=1000))
    pipeline.fit(features[is_calibration], is_member[is_calibration])
    expected = torch.from_numpy(pipeline.decision_function(features))
    torch.testing.assert_close(combined.membership_scores(statistics), expected, rtol=1e-9, atol=1e-9)
    assert {key: value.shape for key, value in combined.coefficients.items()} == {"sima": (2,), "loss": (1,), "constant": (1,)}
    assert combined.coefficients["constant"] == 0
    assert (combined.coefficients["sima"] < 0).all()


def test_combined_beats_its_parts_on_the_other_half(table):
    statistics, is_member, is_calibration = table
    reported = ~is_calibration
    score = CombinedAttack().fit(statistics, is_member, is_calibration).membership_scores(statistics)
    single = max(roc_auc_score(is_member[reported], -row[reported]) for row in torch.cat(list(statistics.values())))
    # Separations 1, 0.5 and 1 add up to sqrt(2.25) = 1.5: AUROC 0.856 against 0.760.
    assert roc_auc_score(is_member[reported], score[reported]) > single + 0.05


def test_combined_does_not_look_at_the_reporting_half(table):
    statistics, is_member, is_calibration = table
    combined = CombinedAttack().fit(statistics, is_member, is_calibration)
    other = {key: torch.where(is_calibration, value, 1e6) for key, value in statistics.items()}
    again = CombinedAttack().fit(other, is_member & is_calibration, is_calibration)
    assert all(torch.equal(again.coefficients[key], value) for key, value in combined.coefficients.items())


def test_combined_does_not_care_for_scale_and_order_of_statistics(table):
    statistics, is_member, is_calibration = table
    score = CombinedAttack().fit(statistics, is_member, is_calibration).membership_scores(statistics)
    scaled = {key: 4000 * value - 5 for key, value in reversed(statistics.items())}
    again = CombinedAttack().fit(scaled, is_member, is_calibration)
    # The solver stops at a gradient of 1e-4 per sample, so the optimum is known to about that.
    torch.testing.assert_close(again.membership_scores(scaled), score, rtol=1e-2, atol=1e-2)
    same = again.membership_scores(dict(reversed(scaled.items())))
    torch.testing.assert_close(same, again.membership_scores(scaled), rtol=0, atol=0)


def test_combined_refuses(table):
    statistics, is_member, is_calibration = table
    with pytest.raises(UserError, match="inverse_penalty is 0"):
        CombinedAttack(inverse_penalty=0)
    with pytest.raises(UserError, match="no members on the calibration half"):
        CombinedAttack().fit(statistics, is_member & ~is_calibration, is_calibration)
    with pytest.raises(UserError, match="no held-out samples on the calibration half"):
        CombinedAttack().fit(statistics, is_member | is_calibration, is_calibration)
    with pytest.raises(UserError, match="no statistics given"):
        CombinedAttack().fit({}, is_member, is_calibration)
    with pytest.raises(ValueError, match="not fitted on these statistics"):
        CombinedAttack().membership_scores(statistics)
    broken = statistics | {"loss": statistics["loss"].clone()}
    broken["loss"][0, 17] = float("nan")
    with pytest.raises(UserError, match="the statistic loss of the sample at place 17 is not finite"):
        CombinedAttack().fit(broken, is_member, is_calibration)
