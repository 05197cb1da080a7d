"""The self-check on nets that were trained for a second or two: the right convention passes, each wrong one is named."""

import math
from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from ldm_privacy.diffusion import flow_alphas_cumprod
from ldm_privacy.errors import UserError
from ldm_privacy.models.channel_map import ChannelMap
from ldm_privacy.models.codec import Codec
from ldm_privacy.models.ideal import scaled_linear_alphas_cumprod
from ldm_privacy.models.predictor import NetworkPredictor
from ldm_privacy.recipes.target_setup import TargetSetup
from ldm_privacy.targets.self_check import STANDARD, UNSCALED, UNSHIFTED, _left_by_affine, self_check
from ldm_privacy.targets.target import Target
from ldm_privacy.training.denoiser import squared_error


class Perceptron(nn.Module):
    """(z, t) of 64 numbers; the time embedding of diffusion models scales and shifts what is hidden."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(64, 256), nn.Linear(256, 64)
        self.time, self.hidden = nn.Linear(32, 512), nn.Linear(256, 256)

    def forward(self, state, time):
        rate = torch.exp(-math.log(10000) * torch.arange(16) / 16)
        angle = time.float()[:, None] * rate
        scale, shift = self.time(torch.cat([angle.sin(), angle.cos()], 1)).chunk(2, 1)
        hidden = nn.functional.silu(self.first(state.flatten(1)) * (1 + scale) + shift)
        return self.last(nn.functional.silu(self.hidden(hidden))).reshape(state.shape)


class Scaled(Codec):
    """Of latents that an encoder is said to have made; only its channel map is looked at."""

    name, network = "scaled", nn.Identity()

    def __init__(self, shift, scale):
        self.channel_map = ChannelMap.diagonal("diffusers", torch.tensor([shift]), torch.tensor([scale]))


MEAN, DEVIATION = 2.5, 4.0
RIGHT = Scaled(MEAN, 1 / DEVIATION)
"""Of posterior means with that mean and standard deviation."""


@pytest.fixture(scope="module")
def digits():
    """Posterior means, (samples, 1, 8, 8): those that a net is trained on, and 64 others."""
    pixels = torch.tensor(load_digits().images, dtype=torch.float32)[:, None]
    means = (pixels - pixels.mean()) / pixels.std() * DEVIATION + MEAN
    return means[64:], means[:64]


def train(kind, latent):
    """A network that was trained on those latents for a second, as a predictor."""
    abar = flow_alphas_cumprod() if kind == "flow" else scaled_linear_alphas_cumprod().float()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Perceptron()
        optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
        for _ in range(400):
            rows, timestep = torch.randint(len(latent), (64,)), torch.randint(1000, (64,))
            noise = torch.randn(64, 1, 8, 8)
            loss = squared_error(network, abar, kind, latent[rows], noise, timestep, {}).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return NetworkPredictor(network.requires_grad_(False), abar, kind)


@pytest.fixture(scope="module")
def trained(digits):
    """prediction type -> a trained network as a predictor; each is trained when it is first asked for."""
    return cache(lambda kind: train(kind, RIGHT.channel_map(digits[0])))


def check(predictor, digits, codec=RIGHT):
    return self_check(Target(codec, predictor), codec.channel_map(digits[1]), {})


@pytest.mark.parametrize("kind", ["flow", "epsilon", "v_prediction"])
def test_the_right_convention_passes_and_leaves_least(trained, digits, kind):
    found = check(trained(kind), digits)
    declared, *rivals = found.left.values()
    assert found.num_images == 64
    assert declared < 0.7
    assert min(rivals) > 1.2 * declared
    assert str(found).startswith(f"leaves {declared:.2f} of what an affine guess leaves, on 64 images; read otherwise: ")


FLOWS = {
    "sigma": ({"time": "sigma"}, r"1000 sigma as its timestep better than sigma as its timestep, as declared"),
    "1 - sigma": ({"time": "one_minus_sigma"}, r"1000 sigma as its timestep better than 1 - sigma as its timestep"),
    "sign": ({"negated": True}, r"1000 sigma as its timestep better than 1000 sigma as its timestep and the negative of"),
    "both": ({"time": "sigma", "negated": True}, r"1000 sigma as its timestep better than sigma as its timestep and the neg"),
}


@pytest.mark.parametrize("wrong", FLOWS)
def test_a_flow_that_is_given_another_time_or_sign_is_refused(trained, digits, wrong):
    declared, message = FLOWS[wrong]
    with pytest.raises(UserError, match=f"^target: the network fits {message}.*mend what its predictor says of time"):
        check(replace(trained("flow"), **declared), digits)


NAMES = {"epsilon": "epsilon", "v_prediction": "v", "sample": "the clean sample"}


@pytest.mark.parametrize(("true", "declared"), [(a, b) for a in ("epsilon", "v_prediction") for b in NAMES if a != b])
def test_another_prediction_type_is_refused(trained, digits, true, declared):
    said = f"{NAMES[true]} as its output better than {NAMES[declared]} as its output, as declared.*mend prediction_type"
    with pytest.raises(UserError, match=said):
        check(replace(trained(true), prediction_type=declared), digits)


CODECS = {
    "no scaling": (Scaled(MEAN, 1.0), STANDARD),
    "no shift": (Scaled(0.0, 1 / DEVIATION), STANDARD),
    "neither": (Scaled(0.0, 1.0), STANDARD),
}


@pytest.mark.parametrize("wrong", CODECS)
@pytest.mark.parametrize("kind", ["flow", "epsilon"])
def test_latents_without_their_scaling_or_shift_are_refused(trained, digits, wrong, kind):
    codec, rival = CODECS[wrong]
    with pytest.raises(UserError, match=f"{rival} better than latents as declared.*mend scaling_factor and shift_factor"):
        check(trained(kind), digits, codec)


@pytest.mark.parametrize(
    ("codec", "rival"), [(Scaled(0.0, 1 / DEVIATION), UNSCALED), (Scaled(-3.0, 1.0), UNSHIFTED)], ids=["scaled", "shifted"]
)
def test_latents_that_are_scaled_or_shifted_though_the_net_was_trained_without_are_refused(trained, digits, codec, rival):
    """The encoder is one of means 0 and deviation 1, which another codec's numbers are put on."""
    plain = RIGHT.channel_map(digits[1])
    with pytest.raises(UserError, match=f"the network fits ({rival}|{STANDARD}) better than latents as declared"):
        self_check(Target(codec, trained("epsilon")), codec.channel_map(plain), {})


@pytest.mark.parametrize("kind", ["flow", "epsilon", "v_prediction"])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("gain", [0.0, 1.0, 10.0])
def test_an_untrained_network_passes_whatever_is_declared(trained, digits, kind, seed, gain):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Perceptron()
    with torch.no_grad():
        network.last.weight.mul_(gain)
    for codec in (RIGHT, Scaled(0.0, 1.0)):
        assert check(replace(trained(kind), network=network), digits, codec).left


@pytest.mark.parametrize("kind", ["flow", "epsilon", "v_prediction"])
@pytest.mark.parametrize("factor", [0.7, 0.8, 1.25, 1.4])
def test_other_latents_are_not_easier_by_themselves(trained, digits, kind, factor):
    """The net leaves least of the latents that it was trained on, so a right scaling passes beside a rival that is near it."""
    latent, target = RIGHT.channel_map(digits[1]), Target(Codec(), trained(kind))
    right, other = (next(iter(self_check(target, each, {}).left.values())) for each in (latent, factor * latent))
    assert right < other


def test_a_reference_is_checked_too_and_how_to_leave_it_out_is_said(trained, digits):
    config = SimpleNamespace(target=SimpleNamespace(self_check=True), seed=0)
    setup: Any = SimpleNamespace(config=config, device="cpu", condition=lambda index: {}, audited_index=torch.arange(64))
    right = trained("epsilon")
    wrong = replace(right, prediction_type="sample")
    found = TargetSetup.checked(setup, Target(RIGHT, right, reference=right), digits[1])
    assert found.facts["self-check"] == found.facts["self-check of the reference"] != ""
    for name, one, other in (("target", wrong, right), ("reference", right, wrong)):
        with pytest.raises(UserError, match=f"^{name}: the network fits epsilon.*; .*, say target.self_check=false\\.$"):
            TargetSetup.checked(setup, Target(RIGHT, one, reference=other), digits[1])


def test_of_a_predictor_that_is_no_network_nothing_is_known(digits):
    assert self_check(Target(RIGHT, lambda state, timestep, condition: state), digits[1], {}) is None


def test_what_an_affine_guess_leaves_is_what_least_squares_leave():
    """With z0 and n of one channel, by many draws: the standard error of a mean square of m draws is its root(2 / m)-fold."""
    generator = torch.Generator().manual_seed(0)
    latent = 1.7 * torch.randn(64, 1, 40, 40, generator=generator, dtype=torch.float64) + 0.4
    noise = torch.randn(latent.shape, generator=generator, dtype=torch.float64)
    abar = flow_alphas_cumprod()[299]
    state = abar.sqrt() * latent + (1 - abar).sqrt() * noise
    targets = {
        "epsilon": noise,
        "sample": latent,
        "v_prediction": abar.sqrt() * noise - (1 - abar).sqrt() * latent,
        "flow": noise - latent,
    }
    for kind, wanted in targets.items():
        matrix = torch.stack([state.flatten(), torch.ones(state.numel(), dtype=torch.float64)], 1)
        left = torch.linalg.lstsq(matrix, wanted.flatten()[:, None]).solution
        error = (matrix @ left - wanted.flatten()[:, None]).square().mean()
        torch.testing.assert_close(_left_by_affine(latent, abar, kind), error, rtol=5 * (2 / state.numel()) ** 0.5, atol=0)
