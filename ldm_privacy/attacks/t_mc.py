"""T_mc: the velocity of a flow, averaged over noises, against what it must be on average."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ldm_privacy.attacks.base import Attack
from ldm_privacy.attacks.query import DenoiserQuery
from ldm_privacy.diffusion import levels
from ldm_privacy.errors import UserError
from ldm_privacy.registry import ATTACKS
from ldm_privacy.types import Contribution, Latent


@ATTACKS.register("t_mc")
class TMC(Attack):
    """`(z0 + mean_n v_n)^2` with v_n = eps_n - zhat_n, smaller = more member-like.

    eps_n is the noise predicted at z_t(n), zhat_n the clean latent that it implies; of a rectified flow v_n is the velocity
    that the network outputs. A perfect one has v_n = n - z0, which is -z0 on average over n. With antithetic noises (n and -n)
    that average is exact, and the statistic is that of the mean error of v, at no further pass; measured in
    docs/concepts/flow.md. Any noise predictor will do.

    `num_pairs` normal noises per (sample, timestep), each with its negative; twice as many where not `antithetic`. Queries:
    2 num_pairs per timestep.

    Source: Rao, Moyer, "Generalization and Memorization in Rectified Flow", 2026, arXiv 2603.13421 (T_mc, there with s = 1 as
    the data and v = z0 - n); antithetic pairs are ours.

    Args:
        num_pairs: Pairs of noises.
        antithetic: The second noise of a pair is the negative of the first; otherwise independent of it.

    Raises:
        UserError: num_pairs below 1.
    """

    log_scale = True

    def __init__(self, *, num_pairs: int = 2, antithetic: bool = True):
        if num_pairs < 1:
            raise UserError(f"attack 't_mc': num_pairs is {num_pairs}; draw at least one pair of noises.")
        self.num_pairs, self.antithetic = num_pairs, antithetic

    @property
    def num_draws(self) -> int:  # type: ignore[override]
        """One a pair, or two where they are independent."""
        return self.num_pairs if self.antithetic else 2 * self.num_pairs

    def contributions(self, query: DenoiserQuery, latent: Latent, timesteps: list[int], noise: Tensor) -> Contribution:
        """(timesteps, *latent.shape), >= 0. See `Attack.contributions`."""
        noise = noise.reshape(self.num_draws, len(timesteps), *latent.shape)
        noise = torch.cat([noise, -noise]) if self.antithetic else noise
        state = query.noisy(latent, noise, timesteps)
        epsilon = query(state, timesteps)
        signal, spread = levels(query.alphas_cumprod[timesteps], latent[None])
        clean = (state - spread * epsilon) / signal
        return (latent + (epsilon - clean).mean(0)).square()

    def num_queries(self, timesteps: Sequence[int]) -> int:
        """2 num_pairs per timestep."""
        return 2 * self.num_pairs * len(timesteps)
