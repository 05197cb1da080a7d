"""Which timesteps a denoiser is trained on."""

import torch
from torch import Tensor

from ldm_privacy.registry import TIMESTEP_SAMPLERS


class TimestepSampler:
    """Draws the timesteps of a step. A subclass writes `__call__`.

    Args:
        num_train_timesteps: Length of the schedule.
    """

    def __init__(self, *, num_train_timesteps: int):
        self.num_train_timesteps = num_train_timesteps

    def __call__(self, count: int, device: torch.device) -> Tensor:
        """(count,) int64 timesteps, from the global random state."""
        raise NotImplementedError


@TIMESTEP_SAMPLERS.register("uniform")
class Uniform(TimestepSampler):
    """Every timestep alike (Ho et al. 2020, 2006.11239, algorithm 1)."""

    def __call__(self, count: int, device: torch.device) -> Tensor:
        return torch.randint(self.num_train_timesteps, (count,), device=device)
