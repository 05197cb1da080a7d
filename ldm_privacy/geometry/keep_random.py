"""A control of the same count: keep random dimensions."""

from typing import ClassVar

from torch import Tensor

from ldm_privacy.geometry.masks import CountRule, RanksBy, check_mask, keep_largest, num_kept
from ldm_privacy.randomness import uniform
from ldm_privacy.registry import MASK_RULES
from ldm_privacy.types import Influence, KeepMask


@MASK_RULES.register("random")
class KeepRandom:
    """Keep random dimensions, drawn per sample: the control that tells the count of a mask from its choice.

    Args:
        keep_fraction: In (0, 1].
        rule: Whose count is kept; see `KeepTopInfluence`.
        seed: Of the draw. A sample's mask is a function of (seed, sample index) alone.

    Raises:
        UserError: keep_fraction is outside (0, 1], or (when called) keeps none.
    """

    ranks_by: ClassVar[RanksBy] = "influence"
    is_control: ClassVar[bool] = True

    def __init__(self, keep_fraction: float = 0.6, *, rule: CountRule = "count", seed: int = 0):
        check_mask(keep_fraction, rule)
        self.keep_fraction = keep_fraction
        self.rule: CountRule = rule
        self.seed = seed

    def __call__(self, influence: Influence, sample_index: Tensor) -> KeepMask:
        """(batch, channels, height, width) bool. Only the influence's shape and device are looked at."""
        draw = uniform("mask", (self.seed, sample_index.to(influence.device)), influence.shape[1:], influence.device)
        return keep_largest(draw, num_kept(influence.shape[1:].numel(), self.keep_fraction, self.rule))
