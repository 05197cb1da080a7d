"""The closed-form predictors: each is -sigma times the score of its noised density."""

import pytest
import torch

from ldm_privacy.models.ideal import IdealDenoiser, MembershipBlindPredictor, linear_alphas_cumprod
from ldm_privacy.types import NoisePredictor

TIMESTEPS = [0, 10, 300, 999]


@pytest.fixture
def dataset():
    return torch.randn(7, 2, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture
def states(dataset):
    """States at each timestep: noised samples of the data set."""
    noise = torch.randn(len(TIMESTEPS), *dataset.shape[1:], generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    abar = linear_alphas_cumprod()[TIMESTEPS][:, None, None, None]
    return abar.sqrt() * dataset[:4] + (1 - abar).sqrt() * noise


def score(log_density, state):
    state = state.clone().requires_grad_()
    return torch.autograd.grad(log_density(state), state)[0]


def test_linear_schedule():
    abar = linear_alphas_cumprod()
    assert abar.shape == (1000,)
    assert float(abar[0]) == pytest.approx(1 - 1e-4, rel=1e-12)
    assert float(abar[1]) == pytest.approx((1 - 1e-4) * (1 - 1e-4 - 0.0199 / 999), rel=1e-12)


def test_memoriser_is_the_score_of_the_noised_samples(dataset, states):
    predictor = IdealDenoiser(dataset)
    assert isinstance(predictor, NoisePredictor)
    epsilon = predictor(states, torch.tensor(TIMESTEPS), None)
    for state, timestep, value in zip(states, TIMESTEPS, epsilon):
        abar = predictor.alphas_cumprod[timestep]

        def log_density(z, abar=abar):
            distances = torch.stack([(z - abar.sqrt() * point).square().sum() for point in dataset])
            return torch.logsumexp(-distances / (2 * (1 - abar)), 0)

        torch.testing.assert_close(value, -(1 - abar).sqrt() * score(log_density, state), rtol=1e-8, atol=1e-8)


def test_memoriser_of_one_sample(dataset):
    predictor = IdealDenoiser(dataset[:1])
    abar = predictor.alphas_cumprod[500]
    noise = dataset[1:2]
    state = abar.sqrt() * dataset[:1] + (1 - abar).sqrt() * noise
    torch.testing.assert_close(predictor(state, torch.tensor([500]), None), noise, rtol=1e-9, atol=1e-9)


def test_memoriser_recovers_the_noise_of_a_member_among_many_at_small_t():
    # Exponents reach 1e7 here, far beyond float32's and float64's exponential.
    dataset = 3 * torch.randn(50, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    noise = torch.randn(50, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    predictor = IdealDenoiser(dataset)
    abar = predictor.alphas_cumprod[10]
    state = (abar.sqrt() * dataset.double() + (1 - abar).sqrt() * noise.double()).float()
    epsilon = predictor(state, torch.full((50,), 10), None)
    assert epsilon.dtype == torch.float32
    # float32 states of size 15 carry 1e-6 of rounding, divided by sigma = 0.05.
    torch.testing.assert_close(epsilon, noise, rtol=0, atol=1e-4)


def test_memoriser_does_not_depend_on_the_order_of_its_samples(dataset, states):
    timestep = torch.tensor(TIMESTEPS)
    expected = IdealDenoiser(dataset)(states, timestep, None)
    torch.testing.assert_close(IdealDenoiser(dataset.flip(0))(states, timestep, None), expected, rtol=1e-9, atol=1e-9)


def test_another_schedule(dataset, states):
    abar = torch.tensor([0.9, 0.5, 0.1], dtype=torch.float64)
    timestep = torch.tensor([0, 1, 2, 2])
    linear = linear_alphas_cumprod()
    nearest = (linear[:, None] - abar).abs().argmin(0)
    for kind in (IdealDenoiser, MembershipBlindPredictor):
        expected = kind(dataset)(states, nearest[timestep], None)
        torch.testing.assert_close(kind(dataset, linear[nearest])(states, timestep, None), expected, rtol=1e-12, atol=0)


def test_blind_is_the_score_of_a_normal_distribution(dataset, states):
    predictor = MembershipBlindPredictor(dataset)
    assert isinstance(predictor, NoisePredictor)
    epsilon = predictor(states, torch.tensor(TIMESTEPS), None)
    mean, variance = dataset.mean(0), dataset.var(0, correction=0)
    for state, timestep, value in zip(states, TIMESTEPS, epsilon):
        abar = predictor.alphas_cumprod[timestep]
        density = torch.distributions.Normal(abar.sqrt() * mean, (abar * variance + 1 - abar).sqrt())
        expected = -(1 - abar).sqrt() * score(lambda z, density=density: density.log_prob(z).sum(), state)
        torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", [IdealDenoiser, MembershipBlindPredictor])
def test_data_states_and_schedules_of_any_precision_are_computed_in_float64(dataset, states, kind):
    timestep, single = torch.tensor(TIMESTEPS), linear_alphas_cumprod().float()
    expected = kind(dataset.float().double(), single.double())(states.float().double(), timestep, {})
    answer = kind(dataset.float(), single)(states.float(), timestep, {})
    assert answer.dtype == torch.float32
    assert torch.equal(answer, expected.float())
    assert torch.equal(kind(dataset.float(), single)(states.float().double(), timestep, {}), expected)
