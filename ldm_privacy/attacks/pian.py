"""PIAN: PIA with its initial noise normalised."""

import math

from ldm_privacy.attacks.pia import PIA
from ldm_privacy.registry import ATTACKS
from ldm_privacy.types import Latent


@ATTACKS.register("pian")
class PIAN(PIA):
    """`(e - epsilon(z_t, t))^4`: PIA with e = e0 / mean|e0| * sqrt(2 / pi), the mean absolute value of a standard normal.

    The mean is over the sample's dimensions, before any mask. Smaller = more member-like. No randomness. One query for e0,
    one per timestep.

    Source: Kong et al., ICLR 2024, arXiv 2305.18355.
    """

    def initial_noise(self, epsilon: Latent) -> Latent:
        """The scaled epsilon(z0, 0)."""
        return epsilon / epsilon.abs().mean(dim=(1, 2, 3), keepdim=True) * math.sqrt(2 / math.pi)
