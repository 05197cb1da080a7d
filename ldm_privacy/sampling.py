"""Images from a denoiser: deterministic DDIM sampling, as a generator of its steps."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ldm_privacy.diffusion import ddim_step
from ldm_privacy.randomness import normal
from ldm_privacy.types import Condition, Decoder, Image, Latent, NoisePredictor


class Step(NamedTuple):
    """One step of a trajectory: the state after it, with the noise that was predicted before it at `timestep`."""

    state: Latent
    epsilon: Latent
    timestep: int


def ddim_steps(predictor: NoisePredictor, start: Latent, num_steps: int, condition: Condition | None = None) -> Iterator[Step]:
    """The DDIM trajectory from noise to a clean latent, eta = 0 (Song et al. 2021, 2010.02502, eq. 12).

    Timesteps (num_steps - 1) r, ..., r, 0 with r = num_train_timesteps // num_steps; the last step goes to abar = 1. The
    predicted clean latent is never clipped: latents are not bounded. One denoiser pass a step for the whole batch.

    Args:
        predictor: Returns epsilon.
        start: (batch, channels, height, width), standard normal noise.
        num_steps: At most as many as there are timesteps.
        condition: Name -> (batch, ...).
    """
    abar = predictor.alphas_cumprod.to(start.device)
    spacing = len(abar) // min(num_steps, len(abar))
    state = start
    for place in reversed(range(min(num_steps, len(abar)))):
        timestep = place * spacing
        epsilon = predictor(state, torch.full((len(state),), timestep, device=start.device), condition or {})
        following = abar[timestep - spacing] if place else torch.ones_like(abar[0])
        state = ddim_step(state, epsilon, abar[timestep], following)
        yield Step(state, epsilon, timestep)


@torch.no_grad()
def generate_images(
    predictor: NoisePredictor,
    decode: Decoder,
    latent_shape: Sequence[int],
    *,
    num_images: int,
    num_steps: int = 50,
    condition: Condition | None = None,
    seed: int = 0,
    batch_size: int = 512,
    device: torch.device | str = "cpu",
    progress: Callable[[int], None] = lambda done: None,
) -> Image:
    """Images in [-1, 1], (num_images, image_channels, height, width), on the device.

    Image k starts from noise of (seed, k), so it is the same picture growing up over the epochs, whatever `batch_size` is; its
    condition is row k of `condition`, from the beginning again where there are fewer rows. Cost: `num_steps` denoiser passes
    and one decoder pass per image. `progress` is called with the number of images done.
    """
    images: list[Tensor] = []
    for index in torch.arange(num_images).split(batch_size):
        state = normal("sampling", (seed, index), latent_shape).to(device)
        rows = {name: value[index % len(value)].to(device) for name, value in (condition or {}).items()}
        for step in ddim_steps(predictor, state, num_steps, rows):
            state = step.state
        images.append(decode(state).clamp(-1, 1))
        progress(sum(len(image) for image in images))
    return torch.cat(images)
