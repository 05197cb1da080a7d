"""An exponential moving average of weights that warms up."""

import torch
from torch import Tensor


def newest_share(num_updates: int, decay: float) -> float:
    """What the newest weights count after so many updates: 1 - min(decay, (1 + n) / (10 + n)); all where there were none.

    The warm-up keeps short runs from averaging over their random start (Tan, Le 2019, 1905.11946, TensorFlow's form).
    """
    return 1 - min(decay, (1 + num_updates) / (10 + num_updates)) if num_updates else 1.0


def update_average(means: list[Tensor], values: list[Tensor], *, num_updates: int, decay: float) -> None:
    """mean <- mean + newest_share (value - mean), in place, without a gradient; `decay` in (0, 1)."""
    with torch.no_grad():
        torch._foreach_lerp_(means, values, newest_share(num_updates, decay))
