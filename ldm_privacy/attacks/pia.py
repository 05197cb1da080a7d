"""PIA: the noise predicted at the clean latent is put in and asked for again."""

from collections.abc import Sequence

from torch import Tensor

from ldm_privacy.attacks.base import Attack
from ldm_privacy.attacks.query import DenoiserQuery
from ldm_privacy.registry import ATTACKS
from ldm_privacy.types import Contribution, Latent


@ATTACKS.register("pia")
class PIA(Attack):
    """`(e0 - epsilon(z_t, t))^4` with e0 = epsilon(z0, 0) and z_t = sqrt(abar_t) z0 + sqrt(1 - abar_t) e0.

    Smaller = more member-like. No randomness. One query for e0, one per timestep.

    Source: Kong et al., "An Efficient Membership Inference Attack for the Diffusion Model by Proximal Initialization",
    ICLR 2024, arXiv 2305.18355.
    """

    log_scale = True

    def contributions(self, query: DenoiserQuery, latent: Latent, timesteps: list[int], noise: Tensor) -> Contribution:
        """(timesteps, *latent.shape), >= 0. See `Attack.contributions`."""
        initial = self.initial_noise(query(latent, 0))
        return (initial - query.at_noise(latent, initial[None], timesteps)).square().square()

    def initial_noise(self, epsilon: Latent) -> Latent:
        """The noise to put in, from epsilon(z0, 0): itself."""
        return epsilon

    def num_queries(self, timesteps: Sequence[int]) -> int:
        """1 + timesteps."""
        return 1 + len(timesteps)
