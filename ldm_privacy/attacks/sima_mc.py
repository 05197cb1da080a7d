"""SimA-MC: the noise predicted at noisy latents, averaged over draws. Two readings of the paper, each under its own name."""

from typing import ClassVar

from torch import Tensor

from ldm_privacy.attacks.base import Attack, check_num_draws
from ldm_privacy.attacks.query import DenoiserQuery
from ldm_privacy.registry import ATTACKS
from ldm_privacy.types import Contribution, Latent


@ATTACKS.register("sima_mc")
class SimAMC(Attack):
    """`mean_n e_n^4` with e_n = epsilon(z_t(n), t), smaller = more member-like: the power first, then the mean.

    No root is taken: with one draw it wouldn't change the ranking, and this is a sum over dimensions. `num_draws` normal
    noises per (sample, timestep); as many queries per timestep.

    Source: Rao, Qu, Moyer, arXiv 2509.25003 (30 draws there).
    """

    log_scale = True
    _name: ClassVar[str] = "sima_mc"

    def __init__(self, *, num_draws: int = 30):
        self.num_draws = check_num_draws(self._name, num_draws)

    def contributions(self, query: DenoiserQuery, latent: Latent, timesteps: list[int], noise: Tensor) -> Contribution:
        """(timesteps, *latent.shape), >= 0. See `Attack.contributions`."""
        return self._predictions(query, latent, timesteps, noise).square().square().mean(0)

    def _predictions(self, query: DenoiserQuery, latent: Latent, timesteps: list[int], noise: Tensor) -> Tensor:
        """The e_n, (draws, timesteps, *latent.shape)."""
        return query.at_noise(latent, noise.reshape(self.num_draws, len(timesteps), *latent.shape), timesteps)


@ATTACKS.register("sima_mc_of_mean")
class SimAMCOfMean(SimAMC):
    """`(mean_n e_n)^4` with e_n = epsilon(z_t(n), t), smaller = more member-like: the mean first, then the power.

    Otherwise as `SimAMC`.
    """

    _name = "sima_mc_of_mean"

    def contributions(self, query: DenoiserQuery, latent: Latent, timesteps: list[int], noise: Tensor) -> Contribution:
        """(timesteps, *latent.shape), >= 0. See `Attack.contributions`."""
        return self._predictions(query, latent, timesteps, noise).mean(0).square().square()
