"""From masked sums to membership scores of each fold."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ldm_privacy.attacks.base import Attack, membership_scores
from ldm_privacy.plugins import blamed_on
from ldm_privacy.types import check_shape


def oriented(
    attack: Attack,
    sums: Sequence[Tensor],
    is_member: Tensor,
    halves: Sequence[Tensor],
    *,
    fitted_to: Sequence[Tensor] | None = None,
) -> Tensor:
    """(folds, timesteps, samples) scores, higher = member, with the attack's free settings fitted on each half in turn.

    One tensor seen by every fold where the attack fits nothing.

    Args:
        attack: What is summed.
        sums: Of one mask, each (timesteps, samples); the scores have their precision.
        is_member: (samples,) bool.
        halves: (samples,) bool each, the samples that each fold fits on.
        fitted_to: The sums that free settings are fitted to; `sums` by default.
    """
    precision, sums = sums[0].dtype, [each.double() for each in sums]
    fitted_to = sums if fitted_to is None else [each.double() for each in fitted_to]
    with blamed_on(attack):
        fits = [attack.calibrated(tuple(each[:, half] for each in fitted_to), is_member[half]) for half in halves]
        found = []
        for fit in fits[:1] if all(fit is attack for fit in fits) else fits:
            statistic = check_shape("combine", fit.combine(*(each[None] for each in sums)), (1, *sums[0].shape))
            found.append(membership_scores(fit, statistic[0]).to(precision))
        return torch.stack(found).expand(len(halves), -1, -1)
