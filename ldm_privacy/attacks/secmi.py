"""SecMI: how exactly a deterministic step up the noise schedule is undone by a step back."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from ldm_privacy.attacks.base import Attack
from ldm_privacy.attacks.query import DenoiserQuery
from ldm_privacy.diffusion import ddim_step
from ldm_privacy.errors import UserError
from ldm_privacy.registry import ATTACKS
from ldm_privacy.types import Contribution, Latent


@ATTACKS.register("secmi")
class SecMI(Attack):
    """`(back(s_{t + interval}) - s_t)^2` along the DDIM inversion s_0 = z0, s_interval, s_{2 interval}, ...

    Smaller = more member-like. Each predicted noise serves the step up and the step back; the predicted clean latent is
    never clipped. No randomness. Queries: one per state from 0 to the largest timestep + interval, that is timesteps + 1
    when they are 0, interval, 2 interval, ... without gaps. Timesteps that are no multiples of the interval, as those nearest
    to a flow's sigmas, have an inversion of their own for each remainder r: s_0, s_r, s_{r + interval}, ...

    Source: Duan et al., "Are Diffusion Models Vulnerable to Membership Inference Attacks?", ICML 2023, arXiv 2302.01316.

    Args:
        interval: Length of a DDIM step, in timesteps.

    Raises:
        UserError: interval below 1; a timestep whose next state is outside the schedule.
    """

    log_scale = True

    def __init__(self, *, interval: int = 10):
        if interval < 1:
            raise UserError(f"attack 'secmi': interval is {interval}; it must be at least 1.")
        self.interval = interval

    def contributions(self, query: DenoiserQuery, latent: Latent, timesteps: list[int], noise: Tensor) -> Contribution:
        """(timesteps, *latent.shape), >= 0. See `Attack.contributions`."""
        abar = query.alphas_cumprod
        first = query(latent, 0)
        error: dict[int, Tensor] = {}
        for inversion in self._inversions(timesteps):
            state, epsilon = latent, first
            for timestep, following in itertools.pairwise(inversion):
                up = ddim_step(state, epsilon, abar[timestep], abar[following])
                epsilon = query(up, following)
                if timestep in timesteps and following == timestep + self.interval:
                    error[timestep] = (ddim_step(up, epsilon, abar[following], abar[timestep]) - state).square()
                state = up
        return torch.stack([error[timestep] for timestep in timesteps])

    def _inversions(self, timesteps: Sequence[int]) -> list[list[int]]:
        """Of each remainder, the timesteps of its states, 0 first."""
        last: dict[int, int] = {}
        for timestep in sorted(timesteps):
            last[timestep % self.interval] = timestep
        return [[0, *range(rest or self.interval, most + self.interval + 1, self.interval)] for rest, most in last.items()]

    def grid(self, timesteps: Sequence[int], num_train_timesteps: int) -> list[int]:
        """The timesteps, checked: with a next state inside the schedule."""
        for timestep in super().grid(timesteps, num_train_timesteps):
            if timestep + self.interval >= num_train_timesteps:
                raise UserError(
                    f"attack 'secmi': timestep {timestep} needs the state at {timestep + self.interval}, "
                    f"but the schedule ends at {num_train_timesteps - 1}."
                )
        return list(timesteps)

    def num_queries(self, timesteps: Sequence[int]) -> int:
        """States from 0 to the largest timestep + interval, of each remainder."""
        return 1 + sum(len(inversion) - 1 for inversion in self._inversions(timesteps))
