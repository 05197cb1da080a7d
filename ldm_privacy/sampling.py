"""Images from a denoiser: deterministic DDIM sampling, plain and guided, as generators of steps."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ldm_privacy.diffusion import ddim_step, predicted_clean
from ldm_privacy.randomness import normal
from ldm_privacy.types import Condition, Decoder, Image, Latent, NoisePredictor


class Schedule(NamedTuple):
    """Which timesteps a trajectory visits, from noise to clean, and the abar of each of its states."""

    timesteps: tuple[int, ...]
    """(steps,): where the noise is predicted."""
    abar: Tensor
    """(steps + 1,): of the start and of the state after each step."""


class Step(NamedTuple):
    """One step of a trajectory: the state after it, with the noise that was predicted before it at `timestep`."""

    state: Latent
    epsilon: Latent
    timestep: int


class GuidedStep(NamedTuple):
    """One step of a guided trajectory: the state after it, and what was predicted before it at `timestep`.

    Attributes:
        state: At `abar_to`.
        clean: The guided prediction of the clean latent.
        conditional, unconditional: Epsilon of the two branches.
        abar_from, abar_to: alphas_cumprod of the state before and after the step, scalars.
    """

    state: Latent
    clean: Latent
    conditional: Latent
    unconditional: Latent
    timestep: int
    abar_from: Tensor
    abar_to: Tensor


def leading_schedule(
    alphas_cumprod: Tensor, num_steps: int, *, steps_offset: int = 0, abar_last: Tensor | float = 1.0
) -> Schedule:
    """Timesteps (num_steps - 1) r, ..., r, 0, each plus `steps_offset`, with r = num_train_timesteps // num_steps.

    Args:
        alphas_cumprod: (num_train_timesteps,).
        num_steps: As many as there are timesteps where it is more.
        steps_offset: 0 for targets of this program; 1 in Stable Diffusion's folders ("leading" steps of diffusers).
        abar_last: Of the state after the last step: 1, or alphas_cumprod[0] in a folder with `set_alpha_to_one: false`.

    Raises:
        ValueError: The first timestep lies beyond the last one of the training.
    """
    spacing = len(alphas_cumprod) // (num_steps := min(num_steps, len(alphas_cumprod)))
    timesteps = tuple(place * spacing + steps_offset for place in reversed(range(num_steps)))
    if timesteps[0] >= len(alphas_cumprod):
        raise ValueError(f"steps_offset {steps_offset}: timestep {timesteps[0]} of {len(alphas_cumprod)}; take fewer steps")
    last = torch.as_tensor(abar_last, dtype=alphas_cumprod.dtype, device=alphas_cumprod.device)
    return Schedule(timesteps, torch.cat([alphas_cumprod[list(timesteps)], last.reshape(1)]))


def ddim_steps(
    predictor: NoisePredictor,
    start: Latent,
    num_steps: int,
    condition: Condition | None = None,
    *,
    schedule: Schedule | None = None,
) -> Iterator[Step]:
    """The DDIM trajectory from noise to a clean latent, eta = 0 (Song et al. 2021, 2010.02502, eq. 12).

    The last step goes to abar = 1. The predicted clean latent is never clipped: latents are not bounded. One denoiser pass a
    step for the whole batch.

    Args:
        predictor: Returns epsilon.
        start: (batch, channels, height, width), standard normal noise.
        num_steps: At most as many as there are timesteps.
        condition: Name -> (batch, ...).
        schedule: In place of `leading_schedule` of `num_steps`.
    """
    state = start
    for timestep, abar_from, abar_to in _visits(predictor, start, num_steps, schedule):
        epsilon = predictor(state, torch.full((len(state),), timestep, device=start.device), condition or {})
        state = ddim_step(state, epsilon, abar_from, abar_to)
        yield Step(state, epsilon, timestep)


def guided_steps(
    predictor: NoisePredictor,
    start: Latent,
    num_steps: int,
    condition: Condition,
    null: Condition,
    guidance_scale: float,
    *,
    schedule: Schedule | None = None,
) -> Iterator[GuidedStep]:
    """As `ddim_steps` with epsilon = eps_u + guidance_scale (eps_c - eps_u) (Ho, Salimans 2022, 2207.12598, eq. 6, w + 1).

    Both branches are one denoiser pass of twice the batch, at a scale of 1 too, where the trajectory is that of the conditional
    branch alone.

    Args:
        predictor, start, num_steps, condition, schedule: As in `ddim_steps`.
        null: Name -> (1, ...) or (batch, ...), under the same names: what stands for "no condition".
        guidance_scale: 0: unconditional, 1: conditional, above: guided.
    """
    state, num = start, len(start)
    both = {name: torch.cat([value, null[name].to(value).expand_as(value)]) for name, value in condition.items()}
    for timestep, abar_from, abar_to in _visits(predictor, start, num_steps, schedule):
        epsilon = predictor(torch.cat([state, state]), torch.full((2 * num,), timestep, device=start.device), both)
        conditional, unconditional = epsilon[:num], epsilon[num:]
        guided = unconditional + guidance_scale * (conditional - unconditional)
        clean, state = predicted_clean(state, guided, abar_from), ddim_step(state, guided, abar_from, abar_to)
        yield GuidedStep(state, clean, conditional, unconditional, timestep, abar_from, abar_to)


@torch.no_grad()
def generate_images(
    predictor: NoisePredictor,
    decode: Decoder,
    latent_shape: Sequence[int],
    *,
    num_images: int,
    first: int = 0,
    num_steps: int = 50,
    condition: Condition | None = None,
    null: Condition | None = None,
    guidance_scale: float | None = None,
    seed: int = 0,
    batch_size: int = 512,
    device: torch.device | str = "cpu",
    progress: Callable[[int], None] = lambda done: None,
) -> Image:
    """Images in [-1, 1], (num_images, image_channels, height, width), on the CPU, where each batch goes once it is made.

    Image k starts from noise of (seed, k), so it is the same picture growing up over the epochs, whatever `batch_size` is; its
    condition is row k of `condition`, from the beginning again where there are fewer rows. With a guidance scale and a `null`
    condition (rows of 1) the samples are guided. Cost: `num_steps` denoiser passes (guided: twice as many) and one decoder
    pass per image. They are the images from number `first` on. `progress` is called with the number of images done.
    """
    images: list[Tensor] = []
    for index in torch.arange(first, first + num_images).split(batch_size):
        state = normal("sampling", (seed, index), latent_shape).to(device)
        rows = {name: value[index % len(value)].to(device) for name, value in (condition or {}).items()}
        steps: Iterator[Step | GuidedStep]
        if rows and null and guidance_scale is not None:
            steps = guided_steps(predictor, state, num_steps, rows, null, guidance_scale)
        else:
            steps = ddim_steps(predictor, state, num_steps, rows)
        for step in steps:
            state = step.state
        images.append(decode(state).clamp(-1, 1).cpu())
        progress(sum(len(image) for image in images))
    return torch.cat(images)


def _visits(
    predictor: NoisePredictor, start: Latent, num_steps: int, schedule: Schedule | None
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Timestep, abar before and abar after, of each step."""
    timesteps, abar = schedule or leading_schedule(predictor.alphas_cumprod, num_steps)
    abar = abar.to(start.device)
    yield from zip(timesteps, abar[:-1], abar[1:])
