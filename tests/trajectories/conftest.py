"""Guided trajectories of known-answer models on Stable Diffusion's schedule, in float64."""

from dataclasses import dataclass

import pytest
import torch

from ldm_privacy.models.ideal import CaptionMemoriser, IdealDenoiser, MembershipBlindPredictor, scaled_linear_alphas_cumprod
from ldm_privacy.randomness import normal
from ldm_privacy.sampling import Schedule, guided_steps, leading_schedule

SHAPE = (2, 3, 4)
ABAR = scaled_linear_alphas_cumprod()
LATENT = normal("latent", (torch.arange(3),), SHAPE).double() + 0.7
NOISE = normal("noise", (torch.arange(3),), SHAPE).double()
AGAINST_ZERO = IdealDenoiser(torch.zeros(1, *SHAPE), ABAR)
AGAINST_NORMAL = MembershipBlindPredictor(torch.stack([torch.ones(SHAPE), -torch.ones(SHAPE)]), ABAR)


@dataclass
class Known:
    """Latents, noise, schedule, and the guided trajectories of a memoriser."""

    latent, noise, schedule = LATENT, NOISE, leading_schedule(ABAR, 50, steps_offset=1, abar_last=ABAR[0])

    def steps(self, guidance_scale, unconditional=AGAINST_ZERO, rows=slice(None), schedule: Schedule | None = None):
        model, schedule = CaptionMemoriser(LATENT, unconditional), schedule or self.schedule
        condition = {"caption": torch.arange(3)[rows]}
        return guided_steps(model, NOISE[rows], 50, condition, model.null(), guidance_scale, schedule=schedule)


@pytest.fixture(scope="session")
def known():
    return Known()
