"""The diffusion algebra against diffusers' schedulers."""

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from ldm_privacy.diffusion import add_noise, ddim_step, epsilon_from_output, training_target


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


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_a_perfect_output_gives_back_the_noise(scheduler, batch, prediction_type):
    latent, noise, timestep = (value.double() if value.is_floating_point() else value for value in batch)
    abar = scheduler.alphas_cumprod.double()
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
