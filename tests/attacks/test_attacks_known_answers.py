"""Attacks on predictors whose membership is known: perfect memorisers, and some that never saw a member."""

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
from tests.reference.predictors import Told, ToldMemoriser

NUM_PER_SIDE = 200
TIMESTEPS = [0, 10, 20, 50, 100]
CONDITIONAL = [name for name in ATTACKS if get_attack(name).views]


@pytest.fixture(scope="module")
def digits():
    """Members, held-out and public digits as latents (1, 8, 8) in [-1, 1], with their rows in the source."""
    latent = torch.tensor(load_digits().images / 8 - 1, dtype=torch.float32)[:, None]
    order = torch.randperm(len(latent), generator=torch.Generator().manual_seed(0))
    member, heldout, public = order.split([NUM_PER_SIDE, NUM_PER_SIDE, len(order) - 2 * NUM_PER_SIDE])
    return latent, member, heldout, public


def aurocs(name, predictor, digits, own=None, null=None, **hyperparameters):
    """At each timestep; `own` (samples,) and `null` are conditions, for an attack that asks for both."""
    latent, member, heldout, _ = digits
    index = torch.cat([member, heldout])
    keep_masks = torch.ones(1, len(index), *latent.shape[1:], dtype=torch.bool)
    attack = get_attack(name, **hyperparameters)
    timesteps, told = TIMESTEPS, {}
    if attack.views:
        nothing = {"c": torch.full((len(index),), null)}
        timesteps = [*TIMESTEPS, 500, 900]
        told = {"condition": {"c": own}, "views": dict.fromkeys(attack.views, nothing)}
    statistics = attack_statistics(attack, predictor, latent[index], timesteps, keep_masks, sample_index=index, **told)
    is_member = np.repeat([1, 0], NUM_PER_SIDE)
    return [roc_auc_score(is_member, row.numpy()) for row in membership_scores(attack, statistics)[0]]


@pytest.mark.parametrize("name", [name for name in ATTACKS if name not in CONDITIONAL])
def test_near_one_on_the_perfect_memoriser(digits, name):
    latent, member, _, _ = digits
    assert max(aurocs(name, IdealDenoiser(latent[member]), digits)) > 0.999


@pytest.mark.parametrize(
    ("name", "hyperparameters"), [*((name, {}) for name in CONDITIONAL), ("clid", {"reduction": "thirds"})]
)
def test_near_one_on_a_perfect_memoriser_that_is_told_which_member_it_sees(digits, name, hyperparameters):
    """Of a held-out sample it is told nothing."""
    latent, member, _, _ = digits
    own = torch.cat([torch.arange(NUM_PER_SIDE), torch.full((NUM_PER_SIDE,), -1)])
    assert max(aurocs(name, ToldMemoriser(latent[member]), digits, own, -1, **hyperparameters)) > 0.999


@pytest.mark.parametrize("blind", [MembershipBlindPredictor, lambda public: IdealDenoiser(public[:NUM_PER_SIDE])])
@pytest.mark.parametrize("name", [name for name in ATTACKS if name not in CONDITIONAL])
def test_half_without_members(digits, name, blind):
    latent, _, _, public = digits
    all_are_chance(aurocs(name, blind(latent[public]), digits))


@pytest.mark.parametrize("blind", [MembershipBlindPredictor, lambda public: IdealDenoiser(public[:NUM_PER_SIDE])])
@pytest.mark.parametrize("name", CONDITIONAL)
def test_half_without_members_where_the_digit_is_told(digits, name, blind):
    latent, member, heldout, public = digits
    digit = torch.tensor(load_digits().target)
    of_each = [blind(latent[public[digit[public] == number]]) for number in range(10)]
    predictor = Told(*of_each, blind(latent[public]))
    all_are_chance(aurocs(name, predictor, digits, digit[torch.cat([member, heldout])], 10))


def all_are_chance(values):
    # Mann-Whitney: under exchangeable labels the AUROC has mean 1/2 and this standard deviation.
    deviation = math.sqrt((2 * NUM_PER_SIDE + 1) / (12 * NUM_PER_SIDE**2))
    for value in values:
        assert abs(value - 0.5) < norm.isf(0.0005) * deviation
