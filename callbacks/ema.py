"""Exponential moving average of the weights, swapped in for audits and samples."""

from collections.abc import Sequence

from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor


class AveragedWeights(WeightAveraging):
    """Lightning's WeightAveraging with decay min(decay, (1 + n) / (10 + n)) after n updates.

    The warm-up keeps short runs from averaging over their random start (Tan, Le 2019, 1905.11946, TensorFlow's form).

    Args:
        decay: In (0, 1).
    """

    def __init__(self, decay: float):
        def update(averaged: Sequence[Tensor], current: Sequence[Tensor], num_averaged: Tensor | int) -> None:
            count = int(num_averaged)
            weight = 1 - min(decay, (1 + count) / (10 + count))
            for mean, value in zip(averaged, current):
                mean.lerp_(value.to(mean.dtype), weight)

        super().__init__(use_buffers=False, multi_avg_fn=update)
