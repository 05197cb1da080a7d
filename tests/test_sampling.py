"""DDIM sampling: its timesteps, its arithmetic, whose noise and condition an image has, and what a perfect memoriser draws."""

import pytest
import torch
from diffusers import DDIMScheduler

from ldm_privacy.diffusion import flow_alphas_cumprod
from ldm_privacy.models.channel_map import per_channel
from ldm_privacy.models.ideal import IdealDenoiser, linear_alphas_cumprod
from ldm_privacy.models.predictor import NetworkPredictor
from ldm_privacy.randomness import normal
from ldm_privacy.sampling import ddim_steps, generate_images, guided_steps, leading_schedule
from tests.reference.autoencoders import far_from_zero, grey_images

SHAPE = (2, 3, 3)


class Recorder:
    """epsilon = tanh(z + t / 1000 + c), and what it was asked."""

    def __init__(self, num_train_timesteps=1000):
        self.alphas_cumprod = linear_alphas_cumprod(num_train_timesteps)
        self.timesteps, self.rows = [], []

    def __call__(self, noisy_latent, timestep, condition):
        assert timestep.shape == (len(noisy_latent),)
        assert len(timestep.unique()) == 1
        self.timesteps.append(int(timestep[0]))
        self.rows.append(len(noisy_latent))
        shift = timestep / 1000 + condition.get("c", torch.zeros(len(noisy_latent)))
        return torch.tanh(noisy_latent + shift.to(noisy_latent)[:, None, None, None])


@pytest.mark.parametrize(("num_train", "num_steps"), [(1000, 50), (1000, 1), (1000, 7), (10, 10), (10, 6)])
def test_a_trajectory_is_that_of_diffusers(num_train, num_steps):
    start, predictor = normal("start", (torch.arange(3),), SHAPE).double(), Recorder(num_train)
    scheduler = DDIMScheduler(num_train, clip_sample=False)
    scheduler.alphas_cumprod = predictor.alphas_cumprod  # float64
    scheduler.set_timesteps(num_steps)
    state, steps = start, list(ddim_steps(predictor, start, num_steps))
    assert [step.timestep for step in steps] == predictor.timesteps == scheduler.timesteps.tolist()
    for step in steps:
        epsilon = predictor(state, torch.full((3,), step.timestep), {})
        torch.testing.assert_close(step.epsilon, epsilon, rtol=1e-12, atol=1e-12)
        state = scheduler.step(epsilon, step.timestep, state).prev_sample
        torch.testing.assert_close(step.state, state, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("scale", [None, 0.0, 3.0])
def test_ddim_of_a_flow_is_eulers_method_for_its_ode(scale):
    """dx/ds = v, from almost noise to s = 0; guided, with the guided velocity."""

    def velocity(state, time, c):
        return torch.tanh(state + (time / 500 + c)[:, None, None, None]) - 0.5 * state

    start, told, null = normal("start", (torch.arange(3),), SHAPE).double(), torch.arange(3.0), torch.tensor([-1.0])
    predictor = NetworkPredictor(velocity, flow_alphas_cumprod(), "flow")
    if scale is None:
        steps = list(ddim_steps(predictor, start, 20, {"c": told}))
    else:
        steps = list(guided_steps(predictor, start, 20, {"c": told}, {"c": null}, scale))
    sigmas = [(50 * place + 1) / 1001 for place in reversed(range(20))]
    state = start * ((1 - sigmas[0]) ** 2 + sigmas[0] ** 2) ** 0.5
    for step, sigma, following in zip(steps, sigmas, [*sigmas[1:], 0.0], strict=True):
        time = torch.full((3,), 1000 * sigma, dtype=torch.float64)
        one, other = velocity(state, time, told), velocity(state, time, null)
        guided = one if scale is None else other + scale * (one - other)
        state = state + (following - sigma) * guided
        size = ((1 - following) ** 2 + following**2) ** 0.5
        torch.testing.assert_close(step.state * size, state, rtol=1e-9, atol=1e-9)


def test_more_steps_than_timesteps_take_each_timestep_once():
    start = torch.zeros(1, *SHAPE)
    assert [step.timestep for step in ddim_steps(Recorder(4), start, 9)] == [3, 2, 1, 0]
    assert [step.timestep for step in ddim_steps(Recorder(1), start, 9)] == [0]


def test_the_last_step_leaves_no_noise():
    sample = normal("sample", (0,), (1, *SHAPE)).double()
    for num_steps in (1, 5):
        *_, last = ddim_steps(IdealDenoiser(sample), normal("start", (1,), (1, *SHAPE)).double(), num_steps)
        torch.testing.assert_close(last.state, sample)


def test_a_schedule_has_the_precision_of_its_alphas_cumprod_whatever_it_ends_with():
    for dtype, other in ((torch.float32, torch.float64), (torch.float64, torch.float32)):
        abar = leading_schedule(linear_alphas_cumprod().to(dtype), 5, abar_last=torch.tensor(0.75, dtype=other)).abar
        assert abar.dtype == dtype
        assert abar[-1] == 0.75
        ends = leading_schedule(linear_alphas_cumprod().to(dtype), 5, abar_last=0.9991)
        assert ends.abar[-1] == torch.tensor(0.9991, dtype=dtype)


def decode(latent):
    return 3 * latent[:, :1]


def test_an_image_is_of_its_seed_and_number_whatever_the_batch():
    condition = {"c": torch.tensor([0.5, -0.5, 2.0])}
    predictor, seen = Recorder(), []
    images = generate_images(
        predictor, decode, SHAPE, num_images=8, num_steps=4, condition=condition, seed=5, batch_size=3, progress=seen.append
    )
    assert seen == [3, 6, 8]
    assert predictor.rows == [3] * 8 + [2] * 4
    assert images.shape == (8, 1, 3, 3)
    assert images.abs().max() == 1, "values beyond [-1, 1] are cut"
    for number, image in enumerate(images):
        *_, last = ddim_steps(
            Recorder(), normal("sampling", (5, number), (1, *SHAPE)), 4, {"c": condition["c"][number % 3][None]}
        )
        torch.testing.assert_close(image, decode(last.state)[0].clamp(-1, 1))


def test_a_batch_leaves_the_device_before_the_next_is_made():
    happened = []

    class OnDevice(torch.Tensor):
        def cpu(self):
            happened.append("moved")
            return self.as_subclass(torch.Tensor)

    def decode_there(latent):
        happened.append("made")
        return latent[:, :1].as_subclass(OnDevice)

    images = generate_images(Recorder(), decode_there, SHAPE, num_images=5, num_steps=1, batch_size=2)
    assert happened == ["made", "moved"] * 3
    assert type(images) is torch.Tensor


def test_by_default_there_are_fifty_steps_of_seed_0_and_no_condition():
    predictor = Recorder()
    images = generate_images(predictor, decode, SHAPE, num_images=2)
    assert predictor.rows == [2] * 50
    assert not images.requires_grad
    assert torch.equal(images, generate_images(Recorder(), decode, SHAPE, num_images=2, num_steps=50, condition={}, seed=0))


def test_generation_keeps_no_graph():
    weight = torch.ones((), requires_grad=True)
    predictor = NetworkPredictor(lambda state, timestep: weight * state, linear_alphas_cumprod())
    assert not generate_images(predictor, lambda latent: weight * latent, SHAPE, num_images=1, num_steps=2).requires_grad


def test_a_memoriser_of_normalised_latents_draws_the_reconstructions_of_its_members():
    codec = far_from_zero()
    mean = codec.network.encode(grey_images(5)).latent_dist.mean
    codec.channel_map = per_channel(mean)
    reconstructions = codec.network.decode(mean).sample.clamp(-1, 1)
    predictor = IdealDenoiser(codec.channel_map(mean))
    images = generate_images(predictor, codec.decode, codec.latent_shape(1, 8), num_images=12, num_steps=20).double()
    distance = (images[:, None] - reconstructions).abs().amax((2, 3, 4))
    assert distance.amin(1).max() < 1e-4, "float32 states"
    assert len(distance.argmin(1).unique()) > 1
