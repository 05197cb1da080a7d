"""SimA-MC: the noise predicted at noisy latents, averaged over draws. Two readings of the paper, each under its own name."""

from torch import Tensor

from ldm_privacy.attacks.base import Attack, check_num_draws
from ldm_privacy.attacks.query import DenoiserQuery
from ldm_privacy.diffusion import add_noise
from ldm_privacy.registry import ATTACKS
from ldm_privacy.types import Contribution, Latent


class _NoisyPredictions(Attack):
    """e_n = epsilon(z_t(n), t) for `num_draws` noises n."""

    def __init__(self, name: str, num_draws: int):
        self.num_draws = check_num_draws(name, num_draws)

    def _predictions(self, query: DenoiserQuery, latent: Latent, timesteps: list[int], noise: Tensor) -> Tensor:
        noise = noise.reshape(self.num_draws, len(timesteps), *latent.shape)
        timestep = latent.new_tensor(timesteps).long()
        return query(add_noise(latent[None], noise, query.alphas_cumprod, timestep), timesteps)


@ATTACKS.register("sima_mc")
class SimAMC(_NoisyPredictions):
    """`mean_n e_n^4` with e_n = epsilon(z_t(n), t), smaller = more member-like: the power first, then the mean.

    No root is taken: with one draw it wouldn't change the ranking, and this is a sum over dimensions. `num_draws` normal
    noises per (sample, timestep); as many queries per timestep.

    Source: Rao, Qu, Moyer, arXiv 2509.25003 (30 draws there).

    Args:
        num_draws: N.
    """

    def __init__(self, *, num_draws: int = 30):
        super().__init__("sima_mc", num_draws)

    def contributions(self, query: DenoiserQuery, latent: Latent, timesteps: list[int], noise: Tensor) -> Contribution:
        """(timesteps, *latent.shape), >= 0. See `Attack.contributions`."""
        return self._predictions(query, latent, timesteps, noise).square().square().mean(0)


@ATTACKS.register("sima_mc_of_mean")
class SimAMCOfMean(_NoisyPredictions):
    """`(mean_n e_n)^4` with e_n = epsilon(z_t(n), t), smaller = more member-like: the mean first, then the power.

    Otherwise as `SimAMC`: as many queries per timestep as draws.

    Source: Rao, Qu, Moyer, arXiv 2509.25003.

    Args:
        num_draws: N.
    """

    def __init__(self, *, num_draws: int = 30):
        super().__init__("sima_mc_of_mean", num_draws)

    def contributions(self, query: DenoiserQuery, latent: Latent, timesteps: list[int], noise: Tensor) -> Contribution:
        """(timesteps, *latent.shape), >= 0. See `Attack.contributions`."""
        return self._predictions(query, latent, timesteps, noise).mean(0).square().square()
