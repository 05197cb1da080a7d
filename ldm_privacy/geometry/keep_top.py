"""The mask: keep the dimensions of largest influence."""

from typing import ClassVar

from torch import Tensor

from ldm_privacy.geometry.masks import CountRule, RanksBy, check_mask, keep_largest, num_kept, percentile_rank
from ldm_privacy.registry import MASK_RULES
from ldm_privacy.types import Influence, KeepMask


@MASK_RULES.register("top")
class KeepTopInfluence:
    """Keep the dimensions of largest influence, per sample.

    Any increasing function of the influence (its logarithm, that in other latent units) gives the same mask.

    Args:
        keep_fraction: In (0, 1].
        rule: "count" keeps exactly round(keep_fraction * D), ties to the lower index. "percentile" is the published rule
            (Rao, Qu, Moyer 2025, 2511.20592): strictly above the row's (1 - keep_fraction) percentile, linear
            interpolation; 153 of 256 for 0.6, fewer where values are equal.

    Raises:
        UserError: keep_fraction is outside (0, 1], or (when called) keeps none.
    """

    ranks_by: ClassVar[RanksBy] = "influence"
    is_control: ClassVar[bool] = False

    def __init__(self, keep_fraction: float = 0.6, *, rule: CountRule = "count"):
        check_mask(keep_fraction, rule)
        self.keep_fraction = keep_fraction
        self.rule: CountRule = rule

    def __call__(self, influence: Influence, sample_index: Tensor) -> KeepMask:
        """(batch, channels, height, width) bool. No randomness; `sample_index` (batch,) is not looked at."""
        flat = influence.flatten(1)
        count = num_kept(flat.shape[1], self.keep_fraction, self.rule)
        if self.rule == "count" or self.keep_fraction == 1:
            return keep_largest(influence, count)
        threshold = flat.sort(dim=1).values[:, percentile_rank(flat.shape[1], self.keep_fraction), None]
        return (flat > threshold).reshape(influence.shape)
