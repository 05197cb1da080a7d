"""Loss: the error of the denoiser in predicting the noise."""

from typing import Literal

from torch import Tensor

from ldm_privacy.attacks.base import Attack
from ldm_privacy.attacks.query import DenoiserQuery
from ldm_privacy.errors import UserError
from ldm_privacy.registry import ATTACKS
from ldm_privacy.types import Contribution, Latent


@ATTACKS.register("loss")
class Loss(Attack):
    """`(n - epsilon(z_t, t))^power`, smaller = more member-like.

    One normal noise n per (sample, timestep). One query per timestep.

    Source: Matsumoto, Miura, Yanai, arXiv 2302.03262; power 2 as in Rao, Qu, Moyer, arXiv 2509.25003, power 4 as in their
    masked version, arXiv 2511.20592; no other.
    """

    num_draws = 1
    log_scale = True

    def __init__(self, *, power: Literal[2, 4] = 2):
        if power not in (2, 4):
            raise UserError(f"attack 'loss': power is {power!r}; it must be 2 or 4.")
        self.power = power

    def contributions(self, query: DenoiserQuery, latent: Latent, timesteps: list[int], noise: Tensor) -> Contribution:
        """(timesteps, *latent.shape), >= 0. See `Attack.contributions`."""
        error = noise - query.at_noise(latent, noise, timesteps)
        return error.square() if self.power == 2 else error.square().square()
