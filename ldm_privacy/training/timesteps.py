"""Which timesteps a denoiser is trained on."""

import math
from typing import Annotated

import torch
from pydantic import Field, PositiveFloat
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


class ContinuousSampler(TimestepSampler):
    """Timestep floor(u T) of a time u in [0, 1], so each has the probability of its T-th. A subclass writes `times`."""

    def __call__(self, count: int, device: torch.device) -> Tensor:
        times = self.times(count, device)
        return (times * self.num_train_timesteps).long().clamp(0, self.num_train_timesteps - 1)

    def times(self, count: int, device: torch.device) -> Tensor:
        """(count,) float64 in [0, 1], 0 the data and 1 the noise, from the global random state."""
        raise NotImplementedError


@TIMESTEP_SAMPLERS.register("u_shaped")
class UShaped(ContinuousSampler):
    """Both ends more often than the middle: density a cosh(a (u - 1/2)) / (2 sinh(a / 2)), a = `slope`.

    It is exp(a u) or its mirror image, each half of the time, as the code of Lee, Lin, Fanti (2024, 2405.20320) draws it, with
    a = 4, to train rectified flows. As a defence: Rao, Moyer (2026, 2603.13421), since a flow gives members away most in the
    middle; what that does to a DDPM, whose timesteps are other noise levels, is not published.

    Args:
        slope: a; the ends are cosh(a / 2) times as dense as the middle, 3.8 times where it is 4.
    """

    def __init__(self, *, num_train_timesteps: int, slope: Annotated[float, Field(gt=0, le=100)] = 4.0):
        super().__init__(num_train_timesteps=num_train_timesteps)
        self.slope = slope

    def times(self, count: int, device: torch.device) -> Tensor:
        drawn = torch.rand(count, dtype=torch.float64, device=device)
        return 0.5 + ((2 * drawn - 1) * math.sinh(self.slope / 2)).asinh() / self.slope  # the inverse of the distribution


@TIMESTEP_SAMPLERS.register("logit_normal")
class LogitNormal(ContinuousSampler):
    """The middle more often than the ends: u = sigmoid(mean + std n), n standard normal.

    No defence but its opposite, and what Stable Diffusion 3 was trained with (Esser et al. 2024, 2403.03206, eq. 19).
    """

    def __init__(self, *, num_train_timesteps: int, mean: float = 0.0, std: PositiveFloat = 1.0):
        super().__init__(num_train_timesteps=num_train_timesteps)
        self.mean, self.std = mean, std

    def times(self, count: int, device: torch.device) -> Tensor:
        return (self.mean + self.std * torch.randn(count, dtype=torch.float64, device=device)).sigmoid()
