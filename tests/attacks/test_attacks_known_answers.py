"""Attacks on predictors whose membership is known: the perfect memoriser, and two that never saw a member."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

from ldm_privacy.attacks.base import get_attack, membership_scores
from ldm_privacy.attacks.runner import attack_statistics
from ldm_privacy.models.ideal import IdealDenoiser, MembershipBlindPredictor
from ldm_privacy.registry import ATTACKS

NUM_PER_SIDE = 200
TIMESTEPS = [0, 10, 20, 50, 100]


@pytest.fixture(scope="module")
def digits():
    """Members, held-out and public digits as latents (1, 8, 8) in [-1, 1], with their rows in the source."""
    latent = torch.tensor(load_digits().images / 8 - 1, dtype=torch.float32)[:, None]
    order = torch.randperm(len(latent), generator=torch.Generator().manual_seed(0))
    member, heldout, public = order.split([NUM_PER_SIDE, NUM_PER_SIDE, len(order) - 2 * NUM_PER_SIDE])
    return latent, member, heldout, public


def aurocs(name, predictor, digits):
    latent, member, heldout, _ = digits
    index = torch.cat([member, heldout])
    keep_masks = torch.ones(1, len(index), *latent.shape[1:], dtype=torch.bool)
    attack = get_attack(name)
    statistics = attack_statistics(attack, predictor, latent[index], TIMESTEPS, keep_masks, sample_index=index)
    is_member = np.repeat([1, 0], NUM_PER_SIDE)
    return [roc_auc_score(is_member, row.numpy()) for row in membership_scores(attack, statistics)[0]]


@pytest.mark.parametrize("name", list(ATTACKS))
def test_near_one_on_the_perfect_memoriser(digits, name):
    latent, member, _, _ = digits
    assert max(aurocs(name, IdealDenoiser(latent[member]), digits)) > 0.999


@pytest.mark.parametrize("blind", [MembershipBlindPredictor, lambda public: IdealDenoiser(public[:NUM_PER_SIDE])])
@pytest.mark.parametrize("name", list(ATTACKS))
def test_half_without_members(digits, name, blind):
    latent, _, _, public = digits
    # Mann-Whitney: under exchangeable labels the AUROC has mean 1/2 and this standard deviation.
    deviation = math.sqrt((2 * NUM_PER_SIDE + 1) / (12 * NUM_PER_SIDE**2))
    for value in aurocs(name, blind(latent[public]), digits):
        assert abs(value - 0.5) < norm.isf(0.0005) * deviation
