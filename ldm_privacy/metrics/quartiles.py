"""AUROC within each quartile of some property of the samples."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ldm_privacy.errors import UserError
from ldm_privacy.metrics.auroc import auroc_interval
from ldm_privacy.metrics.checks import check_finite, check_scores, check_share
from ldm_privacy.metrics.resampling import sides_of
from ldm_privacy.types import Estimate, Intervals

NUM_QUARTILES = 4


@dataclass(frozen=True)
class QuartileAuroc:
    """AUROC by timestep and quartile; quartile 0 has the lowest values.

    Attributes:
        edges: (3,) float64, halfway between the highest value of a quartile and the lowest of the next.
        quartile: (samples,) int64, 0..3.
        num_members, num_heldout: Four counts each.
        auroc: By timestep, then quartile; all three numbers are NaN where a quartile has fewer than two of a side.
        confidence: Of the intervals.
    """

    edges: Tensor
    quartile: Tensor
    num_members: list[int]
    num_heldout: list[int]
    auroc: list[list[Estimate]]
    confidence: float = 0.95


def auroc_by_quartile(
    score: Tensor,
    is_member: Tensor,
    value: Tensor,
    *,
    confidence: float = 0.95,
    group: Tensor | None = None,
    num_bootstrap: int = 1000,
    seed: int = 0,
) -> QuartileAuroc:
    """AUROC of the samples in each quartile of `value`, members and held-out pooled to form the quartiles.

    With local distortion as value, the AUROC of attacks on latent diffusion rises from the lowest to the highest quartile
    (Rao, Qu, Moyer 2025, 2511.20592). The sample of rank r among n (from 0, by value) is in quartile floor(4 r / n), so
    sizes differ by at most one. Equal values are ranked in the order given (pass the samples in ascending order of sample
    index); without ties over an edge nothing depends on the order.

    Args:
        score: (timesteps, samples).
        value: (samples,) what the quartiles are of, finite; of four samples or more.
        is_member, confidence, group, num_bootstrap, seed: As in `ldm_privacy.metrics`; so are errors.

    Returns:
        Tensors on the score's device. O(timesteps samples log samples).
    """
    check_share("confidence", confidence)
    if score.ndim != 2:
        raise ValueError(f"score must be (timesteps, samples), not {tuple(score.shape)}")
    score, is_member = check_scores(score, is_member)
    sides_of(is_member, group)
    quartile, edges = _quartiles(value.detach().to(score.device, torch.float64), len(is_member))
    members, heldout = (quartile[side].bincount(minlength=NUM_QUARTILES).tolist() for side in (is_member, ~is_member))

    def estimate(row: Tensor, number: int) -> Estimate:
        if min(members[number], heldout[number]) < 2:
            return Estimate(math.nan, math.nan, math.nan)
        chosen = quartile == number
        of_group = None if group is None else group[chosen.to(group.device)]
        options = Intervals(confidence, num_bootstrap, seed).options(of_group)
        return auroc_interval(row[chosen], is_member[chosen], **options)

    areas = [[estimate(row, number) for number in range(NUM_QUARTILES)] for row in score]
    return QuartileAuroc(edges, quartile, members, heldout, areas, confidence)


def _quartiles(value: Tensor, num_samples: int) -> tuple[Tensor, Tensor]:
    if value.shape != (num_samples,):
        raise UserError(f"values of shape {tuple(value.shape)} for {num_samples} samples: pass one value per sample.")
    if num_samples < NUM_QUARTILES:
        raise UserError(f"{num_samples} samples have no quartiles: pass at least {NUM_QUARTILES}.")
    check_finite(value, "the value of sample", "quartiles need finite values.")
    order = value.argsort(stable=True)
    of_rank = torch.arange(num_samples, device=value.device) * NUM_QUARTILES // num_samples
    quartile = torch.empty_like(of_rank)
    quartile[order] = of_rank
    first = torch.searchsorted(of_rank, torch.arange(1, NUM_QUARTILES, device=value.device))
    ranked = value[order]
    return quartile, ranked[first - 1].lerp(ranked[first], 0.5)
