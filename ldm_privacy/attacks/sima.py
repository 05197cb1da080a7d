"""SimA: the fourth power of the noise predicted at the clean latent."""

from torch import Tensor

from ldm_privacy.attacks.base import Attack
from ldm_privacy.attacks.query import DenoiserQuery
from ldm_privacy.registry import ATTACKS
from ldm_privacy.types import Contribution, Latent


@ATTACKS.register("sima")
class SimA(Attack):
    """`epsilon(z0, t)^4`, smaller = more member-like.

    The clean latent goes in as it is, not scaled by sqrt(abar_t), with the label t. No randomness. One query per timestep.

    Source: Rao, Qu, Moyer, "Score-based Membership Inference on Diffusion Models", arXiv 2509.25003.
    """

    log_scale = True

    def contributions(self, query: DenoiserQuery, latent: Latent, timesteps: list[int], noise: Tensor) -> Contribution:
        """(timesteps, *latent.shape), >= 0. See `Attack.contributions`."""
        return query(latent.expand(len(timesteps), *latent.shape), timesteps).square().square()
