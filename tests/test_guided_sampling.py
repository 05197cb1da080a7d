"""Guided sampling: equal to diffusers' pipeline over all states, what each step says, and whose condition an image has."""

import pytest
import torch
from diffusers import DDIMScheduler

from ldm_privacy.models.ideal import linear_alphas_cumprod
from ldm_privacy.models.predictor import NetworkPredictor
from ldm_privacy.randomness import normal
from ldm_privacy.sampling import ddim_steps, generate_images, guided_steps, leading_schedule

SHAPE = (2, 3, 3)


class Told:
    """epsilon = tanh(z + t / 1000 + c), and how many rows it was asked for at a time."""

    def __init__(self):
        self.alphas_cumprod, self.rows = linear_alphas_cumprod(), []

    def __call__(self, noisy_latent, timestep, condition):
        self.rows.append(len(noisy_latent))
        shift = timestep / 1000 + condition["c"]
        return torch.tanh(noisy_latent + shift.to(noisy_latent)[:, None, None, None])


START, OWN, NULL = (
    normal("start", (torch.arange(3),), SHAPE).double(),
    {"c": torch.tensor([0.5, -0.5, 2.0])},
    {"c": torch.zeros(1)},
)


@pytest.mark.parametrize("set_alpha_to_one", [True, False])
def test_every_state_is_that_of_the_pipeline(set_alpha_to_one):
    pytest.importorskip("transformers")
    from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=12,
        attention_head_dim=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        steps_offset=1,
        set_alpha_to_one=set_alpha_to_one,
    )
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL(block_out_channels=(4,), norm_num_groups=2, latent_channels=4),
        text_encoder=None,
        tokenizer=None,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    own, null = torch.randn(3, 7, 12), torch.randn(1, 7, 12)
    start, theirs = torch.randn(3, 4, 8, 8), []

    def keep(pipe, step, timestep, kept):
        theirs.append((int(timestep), kept["latents"].clone()))
        return kept

    pipeline(
        prompt_embeds=own,
        negative_prompt_embeds=null.expand_as(own),
        latents=start.clone(),
        guidance_scale=7.5,
        num_inference_steps=50,
        output_type="latent",
        callback_on_step_end=keep,
    )
    predictor = NetworkPredictor(unet, scheduler.alphas_cumprod)
    last = 1.0 if set_alpha_to_one else scheduler.alphas_cumprod[0]
    schedule = leading_schedule(scheduler.alphas_cumprod, 50, steps_offset=1, abar_last=last)
    conditions = {"encoder_hidden_states": own}, {"encoder_hidden_states": null}
    with torch.no_grad():
        ours = list(guided_steps(predictor, start, 50, *conditions, 7.5, schedule=schedule))
    assert [step.timestep for step in ours] == [timestep for timestep, _ in theirs]
    assert len(ours) == 50
    for step, (_, state) in zip(ours, theirs):
        torch.testing.assert_close(step.state, state, rtol=0, atol=1e-4)


@pytest.mark.parametrize("guidance_scale", [0.0, 1.0, 3.0])
def test_a_step_holds_both_branches_the_guided_prediction_and_the_state(guidance_scale):
    predictor, alone, state = Told(), Told(), START
    for step in guided_steps(predictor, START, 7, OWN, NULL, guidance_scale):
        at = torch.full((3,), step.timestep)
        conditional, unconditional = alone(state, at, OWN), alone(state, at, {"c": torch.zeros(3)})
        torch.testing.assert_close(step.conditional, conditional)
        torch.testing.assert_close(step.unconditional, unconditional)
        guided = (1 - guidance_scale) * unconditional + guidance_scale * conditional
        torch.testing.assert_close(step.abar_from.sqrt() * step.clean + (1 - step.abar_from).sqrt() * guided, state)
        state = step.abar_to.sqrt() * step.clean + (1 - step.abar_to).sqrt() * guided
        torch.testing.assert_close(step.state, state)
        state = step.state
    assert predictor.rows == [6] * 7, "both branches are one pass"
    assert float(step.abar_to) == 1


def test_a_scale_of_one_is_the_conditional_trajectory_and_of_zero_the_unconditional_one():
    for guidance_scale, condition in ((1.0, OWN), (0.0, {"c": torch.zeros(3)})):
        plain = ddim_steps(Told(), START, 9, condition)
        for step, other in zip(guided_steps(Told(), START, 9, OWN, NULL, guidance_scale), plain, strict=True):
            torch.testing.assert_close(step.state, other.state)


def test_a_null_row_of_ones_own_may_be_given():
    *_, shared = guided_steps(Told(), START, 4, OWN, NULL, 3.0)
    *_, each = guided_steps(Told(), START, 4, OWN, {"c": torch.zeros(3)}, 3.0)
    assert torch.equal(shared.state, each.state)


def test_both_branches_are_told_in_the_precision_of_the_condition():
    class Strict(Told):
        def __call__(self, noisy_latent, timestep, condition):
            assert condition["c"].dtype == OWN["c"].dtype
            return super().__call__(noisy_latent, timestep, condition)

    *_, plain = guided_steps(Told(), START, 4, OWN, NULL, 3.0)
    *_, other = guided_steps(Strict(), START, 4, OWN, {"c": NULL["c"].double()}, 3.0)
    assert torch.equal(plain.state, other.state)


def test_schedules_are_those_of_diffusers():
    for num_train, num_steps, offset in [(1000, 50, 1), (1000, 7, 0), (1000, 3, 2), (10, 4, 0)]:
        scheduler = DDIMScheduler(num_train, steps_offset=offset)
        scheduler.set_timesteps(num_steps)
        schedule = leading_schedule(scheduler.alphas_cumprod, num_steps, steps_offset=offset)
        assert list(schedule.timesteps) == scheduler.timesteps.tolist()
        assert schedule.abar[-1] == 1
        assert torch.equal(schedule.abar[:-1], scheduler.alphas_cumprod[scheduler.timesteps])
    with pytest.raises(ValueError, match="timestep 1000 of 1000"):
        leading_schedule(linear_alphas_cumprod(), 1000, steps_offset=1)


def test_plain_sampling_takes_a_schedule_too():
    schedule = leading_schedule(linear_alphas_cumprod(), 20, steps_offset=1)
    steps = list(ddim_steps(Told(), START, 20, OWN, schedule=schedule))
    assert [step.timestep for step in steps] == list(range(951, 0, -50))


def test_generated_images_are_guided_each_under_its_own_condition():
    options = {"num_images": 5, "num_steps": 4, "condition": OWN, "seed": 5}
    images = generate_images(Told(), lambda latent: latent / 9, SHAPE, null=NULL, guidance_scale=3.0, batch_size=2, **options)
    for number, image in enumerate(images):
        start, condition = normal("sampling", (5, number), (1, *SHAPE)), {"c": OWN["c"][number % 3][None]}
        *_, last = guided_steps(Told(), start, 4, condition, NULL, 3.0)
        torch.testing.assert_close(image, (last.state[0] / 9).clamp(-1, 1))
    plain = generate_images(Told(), lambda latent: latent / 9, SHAPE, **options)
    assert (plain - images).abs().max() > 0.01
    assert torch.equal(plain, generate_images(Told(), lambda latent: latent / 9, SHAPE, null=NULL, **options))
