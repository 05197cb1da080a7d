"""The diffusion algebra against diffusers' schedulers."""

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from ldm_privacy.diffusion import (
    PREDICTION_TYPES,
    add_noise,
    check_prediction_type,
    ddim_step,
    epsilon_from_output,
    flow_alphas_cumprod,
    flow_sigma,
    flow_state,
    flow_timestep,
    predicted_clean,
    training_target,
)
from ldm_privacy.errors import UserError


@pytest.fixture
def scheduler():
    return DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear", beta_start=1e-4, beta_end=2e-2)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    latent, noise = torch.randn(2, 6, 4, 4, 4, generator=generator)
    return latent, noise, torch.tensor([0, 1, 250, 500, 998, 999])


def test_add_noise_is_the_schedulers(scheduler, batch):
    latent, noise, timestep = batch
    ours = add_noise(latent, noise, scheduler.alphas_cumprod, timestep)
    torch.testing.assert_close(ours, scheduler.add_noise(latent, noise, timestep))


def test_v_target_is_the_schedulers(scheduler, batch):
    latent, noise, timestep = batch
    ours = training_target(latent, noise, scheduler.alphas_cumprod, timestep, "v_prediction")
    torch.testing.assert_close(ours, scheduler.get_velocity(latent, noise, timestep))


@pytest.mark.parametrize("schedule", ["linear", "flow"])
@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_a_perfect_output_gives_back_the_noise(scheduler, batch, prediction_type, schedule):
    latent, noise, timestep = (value.double() if value.is_floating_point() else value for value in batch)
    abar = flow_alphas_cumprod() if schedule == "flow" else scheduler.alphas_cumprod.double()
    noisy = add_noise(latent, noise, abar, timestep)
    output = training_target(latent, noise, abar, timestep, prediction_type)
    torch.testing.assert_close(epsilon_from_output(output, noisy, abar, timestep, prediction_type), noise)


def test_ddim_step_is_the_schedulers_without_clipping(scheduler, batch):
    latent, noise, _ = batch
    ddim = DDIMScheduler.from_config(scheduler.config, clip_sample=False)
    ddim.set_timesteps(100)
    theirs = ddim.step(noise, 500, 3 * latent).prev_sample
    abar = scheduler.alphas_cumprod
    torch.testing.assert_close(ddim_step(3 * latent, noise, abar[500], abar[490]), theirs)


def test_ddim_there_and_back_with_the_same_noise_is_the_identity(scheduler, batch):
    latent, noise, _ = (value.double() for value in batch)
    abar = scheduler.alphas_cumprod.double()
    there = ddim_step(latent, noise, abar[0], abar[300])
    torch.testing.assert_close(ddim_step(there, noise, abar[300], abar[0]), latent)


def test_a_ddim_step_takes_each_sample_from_and_to_its_own_noise_level(scheduler, batch):
    latent, noise, timestep = batch
    abar = scheduler.alphas_cumprod
    together = ddim_step(latent, noise, abar[timestep], abar[timestep.flip(0)])
    for row, (start, end) in enumerate(zip(timestep, timestep.flip(0))):
        alone = ddim_step(latent[row][None], noise[row][None], abar[start], abar[end])
        torch.testing.assert_close(together[row], alone[0])


SIGMA = (torch.tensor([0, 1, 250, 500, 998, 999], dtype=torch.float64) + 1)[:, None, None, None] / 1001
"""Of the batch's timesteps."""


def test_timestep_t_of_a_flow_is_sigma_t_plus_1_of_num_plus_1(batch):
    timestep = batch[2]
    assert flow_alphas_cumprod(2).tolist() == pytest.approx([(2 / 3) ** 2 / (5 / 9), (1 / 3) ** 2 / (5 / 9)])
    torch.testing.assert_close(flow_sigma(flow_alphas_cumprod())[timestep], SIGMA.flatten(), rtol=1e-9, atol=0)
    for num in (1, 10, 1000):
        assert [flow_timestep((index + 1) / (num + 1), num) for index in range(num)] == list(range(num))
        assert (flow_timestep(0.0, num), flow_timestep(1.0, num)) == (0, num - 1)
    assert flow_timestep(0.3, 1000) == 299


def test_the_variance_preserving_state_of_a_flow_is_its_own_state_scaled(batch):
    latent, noise, timestep = batch[0].double(), batch[1].double(), batch[2]
    abar = flow_alphas_cumprod()
    own = (1 - SIGMA) * latent + SIGMA * noise
    noisy = add_noise(latent, noise, abar, timestep)
    torch.testing.assert_close(flow_state(noisy, abar[timestep]), own)
    torch.testing.assert_close(noisy, own / ((1 - SIGMA).square() + SIGMA.square()).sqrt())


def test_a_flow_in_single_precision_is_exact_where_almost_nothing_is_noise(batch):
    """1 - abar is 1e-6 at the first timestep: subtracted in single precision it would be 5 % off."""
    first, abar = torch.tensor([0]), flow_alphas_cumprod()
    noisy = add_noise(torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1), abar, first)
    assert noisy.dtype == torch.float32
    torch.testing.assert_close(noisy.double().item(), 1 / (1000**2 + 1) ** 0.5, rtol=1e-6, atol=0)
    clean = predicted_clean(torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1), abar[0])
    torch.testing.assert_close(clean.double().item(), -1 / 1000, rtol=1e-6, atol=0)


def test_a_ddim_step_of_a_flow_is_an_euler_step_of_its_ode(batch):
    latent, velocity = batch[0].double(), batch[1].double()
    abar, sigma = flow_alphas_cumprod(), SIGMA.flatten()
    start, end = batch[2], batch[2].flip(0)
    state = latent + (sigma[:, None, None, None].flip(0) - SIGMA) * velocity
    noisy = latent * (abar[start].sqrt() + (1 - abar[start]).sqrt())[:, None, None, None]
    epsilon = epsilon_from_output(velocity, noisy, abar, start, "flow")
    torch.testing.assert_close(flow_state(ddim_step(noisy, epsilon, abar[start], abar[end]), abar[end]), state)


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_a_flow_has_a_flows_schedule_and_nothing_else_has_it(scheduler, prediction_type):
    flow, other = flow_alphas_cumprod(), scheduler.alphas_cumprod
    its_own, foreign = (flow, other) if prediction_type == "flow" else (other, flow)
    for dtype in (torch.float32, torch.float64):
        check_prediction_type(prediction_type, its_own.to(dtype))
        with pytest.raises(UserError, match=f"'{prediction_type}'"):
            check_prediction_type(prediction_type, foreign.to(dtype))
    check_prediction_type(prediction_type)


def test_a_flow_is_told_by_its_schedule_in_half_precision_too_but_not_from_one_whose_sigmas_are_shifted():
    check_prediction_type("flow", flow_alphas_cumprod().half().float())
    sigma = flow_sigma(flow_alphas_cumprod())
    shifted = 1.25 * sigma / (1 + 0.25 * sigma)
    abar = (1 - shifted).square() / ((1 - shifted).square() + shifted.square())
    check_prediction_type("epsilon", abar)
    with pytest.raises(UserError):
        check_prediction_type("flow", abar)
