"""Images from a denoiser: deterministic DDIM sampling."""

from collections.abc import Callable

import torch
from diffusers import DDIMScheduler, DDPMScheduler

from ldm_privacy.models.latent_space import LatentSpace
from ldm_privacy.randomness import normal
from ldm_privacy.types import Image, NoisePredictor


@torch.no_grad()
def generate_images(
    predictor: NoisePredictor,
    scheduler: DDPMScheduler,
    latent_space: LatentSpace,
    latent_shape: tuple[int, ...],
    *,
    num_images: int,
    num_steps: int = 50,
    seed: int = 0,
    batch_size: int = 512,
    progress: Callable[[int], None] = lambda done: None,
) -> Image:
    """Unconditional images in [-1, 1], (num_images, image_channels, height, width).

    DDIM with eta = 0 (Song et al. 2021, 2010.02502). Image k starts from noise of (seed, k), so it is the same picture
    growing up over the epochs, whatever `batch_size` is. Cost: `num_steps` denoiser passes and one decoder pass per image.
    `progress` is called with the number of images done.
    """
    device = latent_space.device
    # The predictor always returns epsilon; latents are not bounded, so nothing is clipped.
    ddim = DDIMScheduler.from_config(scheduler.config, clip_sample=False, prediction_type="epsilon")
    ddim.set_timesteps(min(num_steps, len(predictor.alphas_cumprod)))
    images = []
    for index in torch.arange(num_images).split(batch_size):
        latent = normal("sampling", (seed, index), latent_shape).to(device)
        for timestep in ddim.timesteps:
            epsilon = predictor(latent, timestep.repeat(len(index)).to(device), None)
            latent = ddim.step(epsilon, timestep, latent).prev_sample
        images.append(latent_space.decode(latent).clamp(-1, 1))
        progress(sum(len(image) for image in images))
    return torch.cat(images)
