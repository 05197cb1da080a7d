"""No mask: keep every dimension."""

from typing import ClassVar

import torch
from torch import Tensor

from ldm_privacy.geometry.masks import RanksBy
from ldm_privacy.registry import MASK_RULES
from ldm_privacy.types import Influence, KeepMask


@MASK_RULES.register("all")
class KeepAll:
    """Keep every dimension: the unmasked attack."""

    ranks_by: ClassVar[RanksBy] = "influence"
    is_control: ClassVar[bool] = False

    def __init__(self) -> None:
        self.keep_fraction = 1.0

    def __call__(self, influence: Influence, sample_index: Tensor) -> KeepMask:
        """(batch, channels, height, width) bool, all True."""
        return torch.ones_like(influence, dtype=torch.bool)
