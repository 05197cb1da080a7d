"""A control of the same count: keep the dimensions of lowest influence."""

from typing import ClassVar

from torch import Tensor

from ldm_privacy.geometry.masks import CountRule, RanksBy, check_mask, keep_largest, num_kept
from ldm_privacy.registry import MASK_RULES
from ldm_privacy.types import Influence, KeepMask


@MASK_RULES.register("lowest")
class KeepLowestInfluence:
    """Keep the dimensions of lowest influence, per sample: the control that should lose what `KeepTopInfluence` gains.

    Args:
        keep_fraction: In (0, 1].
        rule: Whose count is kept; see `KeepTopInfluence`. Ties go to the lower index.

    Raises:
        UserError: keep_fraction is outside (0, 1], or (when called) keeps none.
    """

    ranks_by: ClassVar[RanksBy] = "influence"
    is_control: ClassVar[bool] = True

    def __init__(self, keep_fraction: float = 0.6, *, rule: CountRule = "count"):
        check_mask(keep_fraction, rule)
        self.keep_fraction = keep_fraction
        self.rule: CountRule = rule

    def __call__(self, influence: Influence, sample_index: Tensor) -> KeepMask:
        """(batch, channels, height, width) bool. No randomness; `sample_index` (batch,) is not looked at."""
        return keep_largest(-influence, num_kept(influence.shape[1:].numel(), self.keep_fraction, self.rule))
