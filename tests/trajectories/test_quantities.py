"""Overestimation, branch gap and replication: known answers of a memoriser, and slow separate versions."""

import sys

import pytest
import torch

from ldm_privacy.randomness import normal
from ldm_privacy.trajectories import branch_gap, overestimation, similarity
from ldm_privacy.trajectories.replication import nearest_of, nearest_of_shares
from tests.trajectories.conftest import LATENT, SHAPE

MEAN = normal("mean", (0,), SHAPE).double()


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0, 7.5])
def test_a_memoriser_overestimates_by_the_guidance_scale(known, guidance_scale):
    for step in known.steps(guidance_scale):
        found = overestimation(step.clean, LATENT)
        torch.testing.assert_close(found.gain, torch.full((3,), guidance_scale, dtype=torch.float64))
        expected = (guidance_scale - 1) ** 2 * LATENT.square().flatten(1).mean(1)
        torch.testing.assert_close(found.error, expected, rtol=1e-6, atol=1e-12)


def test_the_gain_is_about_the_mean_and_the_error_is_not():
    predicted = MEAN + 4 * (LATENT - MEAN)
    found = overestimation(predicted, LATENT, mean=MEAN)
    torch.testing.assert_close(found.gain, torch.full((3,), 4.0, dtype=torch.float64))
    torch.testing.assert_close(found.error, (9 * (LATENT - MEAN).square()).flatten(1).mean(1))
    assert overestimation(predicted, MEAN.expand_as(LATENT), mean=MEAN).gain.isnan().all()


def test_the_branch_gap_of_a_memoriser(known):
    """eps_c - eps_u = -sqrt(abar / (1 - abar)) x against a clean prediction of 0, whatever the scale."""
    for guidance_scale in (1.0, 7.5):
        for step in known.steps(guidance_scale):
            expected = (step.abar_from / (1 - step.abar_from)).sqrt() * LATENT.square().flatten(1).mean(1).sqrt()
            torch.testing.assert_close(branch_gap(step.conditional, step.unconditional), expected, rtol=1e-6, atol=0)


def slow_cosine(one, other):
    one, other = (one - MEAN).flatten(), (other - MEAN).flatten()
    return float(one @ other / (one.norm() * other.norm()))


def test_replication_is_the_centred_cosine_with_every_member(monkeypatch):
    monkeypatch.setattr(sys.modules[nearest_of.__module__], "_PRODUCTS_AT_ONCE", 3 * 24)
    member, index = normal("member", (torch.arange(8),), SHAPE).double(), torch.tensor([1, 4, 5, 9, 10, 12, 20, 21])
    generated = torch.stack([MEAN + 5 * (member[6] - MEAN), member[2] + 0.1, normal("new", (0,), SHAPE).double()])
    own = torch.stack([member[6], member[3], LATENT[0]])
    found, (best_cosine, nearest) = similarity(generated, own, MEAN), nearest_of(generated, member, index, MEAN)
    for row in range(3):
        assert float(found[row]) == pytest.approx(slow_cosine(generated[row], own[row]))
        cosines = [slow_cosine(generated[row], each) for each in member]
        best = max(range(8), key=cosines.__getitem__)
        assert int(nearest[row]) == int(index[best])
        assert float(best_cosine[row]) == pytest.approx(cosines[best])
    assert float(found[0]) == pytest.approx(1), "over-saturation changes nothing"
    shares = [nearest_of(generated, member[rows], index[rows], MEAN) for rows in (slice(0, 3), slice(3, 3), slice(3, 8))]
    joined = nearest_of_shares(shares)
    assert torch.equal(joined[1], nearest)
    torch.testing.assert_close(joined[0], best_cosine)


def test_a_memoriser_replicates_its_captions(known):
    for guidance_scale in (1.0, 7.5):
        *_, last = known.steps(guidance_scale)
        index = torch.tensor([3, 5, 8])
        assert torch.equal(nearest_of(last.state, LATENT, index, torch.zeros(SHAPE))[1], index)
        assert similarity(last.state, LATENT, torch.zeros(SHAPE)).min() > 0.99
