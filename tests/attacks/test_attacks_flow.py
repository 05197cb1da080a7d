"""Attacks on a rectified flow: through the wrapper, against its own formulas in x_s, v and sigma."""

import math

import pytest
import torch
from torch import nn

from ldm_privacy.attacks.base import get_attack
from ldm_privacy.attacks.runner import attack_statistics, draw_noise
from ldm_privacy.diffusion import flow_alphas_cumprod
from ldm_privacy.models.predictor import NetworkPredictor
from ldm_privacy.registry import ATTACKS

TIMESTEPS = [299, 0, 99, 600]
SHAPE = (4, 2, 8, 8)
FEW = {"sima_mc": {"num_draws": 3}, "sima_mc_of_mean": {"num_draws": 3}, "dime": {"num_draws": 2}, "pfami": {"num_crops": 2}}


class Velocity:
    """v(x_s, 1000 s, c) of fixed random weights, float64."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.weight = torch.randn(2, 2, 3, 3, generator=generator, dtype=torch.float64) / 4

    def __call__(self, state, time, c):
        shift = (time / 500 + 0.1 * c)[:, None, None, None]
        return torch.tanh(nn.functional.conv2d(state, self.weight, padding=1) + shift) - 0.3 * state


class PlainFlow:
    """The same network as a noise predictor, a row at a time, by the formulas of a flow alone."""

    def __init__(self, network):
        self.network = network
        self.sigma = [(index + 1) / 1001 for index in range(1000)]
        abar = [(1 - sigma) ** 2 / ((1 - sigma) ** 2 + sigma**2) for sigma in self.sigma]
        self.alphas_cumprod = torch.tensor(abar, dtype=torch.float64)

    def velocity(self, state, sigma, c):
        return self.network(state, torch.full((len(state),), 1000 * sigma, dtype=torch.float64), c)

    def __call__(self, noisy_latent, timestep, condition):
        rows = []
        for place, (noisy, index) in enumerate(zip(noisy_latent, timestep.tolist())):
            sigma = self.sigma[index]
            state = noisy[None] * math.sqrt((1 - sigma) ** 2 + sigma**2)
            rows.append(state + (1 - sigma) * self.velocity(state, sigma, condition["c"][place : place + 1]))
        return torch.cat(rows)


@pytest.fixture(scope="module")
def setting():
    generator = torch.Generator().manual_seed(1)
    latent = torch.randn(SHAPE, generator=generator, dtype=torch.float64)
    keep = torch.stack([torch.ones(SHAPE, dtype=torch.bool), torch.rand(SHAPE, generator=generator) < 0.5])
    network = Velocity()
    return network, latent, keep, torch.randn(3, len(latent), generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("name", list(ATTACKS))
def test_every_attack_runs_on_a_flow_and_finds_what_its_formulas_say(setting, name):
    network, latent, keep, numbers = setting
    attack = get_attack(name, **FEW.get(name, {}))
    keep = keep if attack.maskable else keep[:1]
    told = {"condition": {"c": numbers[0]}, "views": {view: {"c": numbers[1 + len(view) % 2]} for view in attack.views}}
    with torch.no_grad():
        of_flow, plain = (
            attack_statistics(attack, predictor, latent, TIMESTEPS, keep, seed=5, **told)
            for predictor in (NetworkPredictor(network, flow_alphas_cumprod(), "flow"), PlainFlow(network))
        )
    assert of_flow.isfinite().all()
    torch.testing.assert_close(of_flow, plain, rtol=1e-7, atol=1e-9)


def drawn(attack, latent, place):
    """(draws, *latent.shape) of one timestep."""
    return draw_noise(attack, latent, TIMESTEPS, seed=5).reshape(attack.num_draws, len(TIMESTEPS), *SHAPE)[:, place].double()


def found(setting, attack):
    network, latent, keep, numbers = setting
    predictor = NetworkPredictor(network, flow_alphas_cumprod(), "flow")
    told = {"condition": {"c": numbers[0]}, "seed": 5}
    with torch.no_grad():
        return attack_statistics(attack, predictor, latent, TIMESTEPS, keep[:1], **told)[0]


def velocities(setting, noise, place):
    """v at x_s of each draw, (draws, *latent.shape), and s."""
    network, latent, _, numbers = setting
    sigma = (TIMESTEPS[place] + 1) / 1001
    with torch.no_grad():
        given = [(1 - sigma) * latent + sigma * each for each in noise]
        return torch.stack([PlainFlow(network).velocity(state, sigma, numbers[0]) for state in given]), sigma


@pytest.mark.parametrize("place", range(len(TIMESTEPS)))
def test_loss_is_that_of_the_training_by_a_factor(setting, place):
    """n - eps = (1 - s) (n - z0 - v)."""
    attack = get_attack("loss")
    noise = drawn(attack, setting[1], place)
    velocity, sigma = velocities(setting, noise, place)
    error = (velocity - (noise - setting[1]))[0].square().sum((1, 2, 3))
    torch.testing.assert_close(found(setting, attack)[place], (1 - sigma) ** 2 * error, rtol=1e-9, atol=0)


@pytest.mark.parametrize("antithetic", [True, False])
@pytest.mark.parametrize("place", range(len(TIMESTEPS)))
def test_t_mc_is_that_of_the_velocities(setting, place, antithetic):
    attack = get_attack("t_mc", antithetic=antithetic)
    noise = drawn(attack, setting[1], place)
    assert len(noise) == (2 if antithetic else 4)
    noise = torch.cat([noise, -noise]) if antithetic else noise
    velocity, _ = velocities(setting, noise, place)
    expected = (setting[1] + velocity.mean(0)).square().sum((1, 2, 3))
    torch.testing.assert_close(found(setting, attack)[place], expected, rtol=1e-9, atol=0)
    of_errors = (velocity - noise + setting[1]).mean(0).square().sum((1, 2, 3))
    assert torch.allclose(of_errors, expected, rtol=1e-9) == antithetic, "with -n beside n it is that of the mean error"


@pytest.mark.parametrize("slope", [-1.0, 0.0, 0.6])
def test_t_mc_of_a_linear_velocity(slope):
    """v = a x_s is a (1 - s) z0 on average over n and -n: the statistic is (1 + a (1 - s))^2 |z0|^2."""
    latent = torch.randn(SHAPE, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    predictor = NetworkPredictor(lambda state, time: slope * state, flow_alphas_cumprod(), "flow")
    keep = torch.ones(1, *SHAPE, dtype=torch.bool)
    statistic = attack_statistics(get_attack("t_mc", num_pairs=1), predictor, latent, TIMESTEPS, keep)[0]
    clean = torch.tensor([1 - (timestep + 1) / 1001 for timestep in TIMESTEPS], dtype=torch.float64)
    expected = (1 + slope * clean).square()[:, None] * latent.square().sum((1, 2, 3))
    torch.testing.assert_close(statistic, expected, rtol=1e-9, atol=0)
