"""Label permutation: the AUROCs that the same scores have where membership is dealt out at random."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ldm_privacy.errors import UserError
from ldm_privacy.metrics.checks import check_scores, check_share, row_chunks
from ldm_privacy.metrics.placements import Ordered
from ldm_privacy.metrics.resampling import sides_of
from ldm_privacy.randomness import derive_seed


@dataclass(frozen=True)
class NullBand:
    """Where an AUROC lies that knows nothing of membership, and how rarely such a one reaches the observed value."""

    lower: float
    upper: float
    p_value: float
    """One-sided, against "higher than chance"."""


def permuted_labels(is_member: Tensor, *, num_permutations: int = 200, group: Tensor | None = None, seed: int = 0) -> Tensor:
    """Random re-labellings of the same samples.

    Without `group` each one keeps the number of members. With `group` the labels of whole groups are permuted: the number
    of member groups stays, the number of members differs from one to the next where groups differ in size. That is
    exact where a group's label is independent of its size and scores, which is the null hypothesis.

    Args:
        is_member, group: As in `ldm_privacy.metrics`; so are errors.
        num_permutations: How many, at least one.
        seed: Decides the permutations together with the number of samples (of groups) alone, never the scores. For
            permutations of two halves that are independent of each other, take two seeds.

    Returns:
        Tensor bool (num_permutations, samples), on the CPU. O(num_permutations * samples).
    """
    if num_permutations < 1:
        raise UserError(f"num_permutations is {num_permutations}: choose at least 1 (199 or more for a 95 % band).")
    sides_of(is_member, group)
    unit = np.arange(len(is_member)) if group is None else np.asarray(group)
    _, first, unit = np.unique(unit, return_index=True, return_inverse=True)
    label = is_member.cpu()[torch.from_numpy(first)]
    generator = torch.Generator().manual_seed(derive_seed("label permutation", seed))
    permuted = torch.stack([label[torch.randperm(len(label), generator=generator)] for _ in range(num_permutations)])
    return permuted[:, torch.from_numpy(unit)]


def permuted_auroc(
    score: Tensor, is_member: Tensor, *, num_permutations: int = 200, group: Tensor | None = None, seed: int = 0
) -> Tensor:
    """AUROC of each row under permuted labels; the same permutations for all rows, so that a maximum can be repeated.

    Mid-ranks R are found once a row; then every permutation with m members and h held-out is a sum,
    `(sum of the members' R - m (m + 1) / 2) / (m h)`, and all of them are one matrix product. Counted in integers
    (doubled mid-ranks), so an AUROC equal to `auroc`'s is equal to the last digit.

    Where a timestep was chosen on one half and reported on the other, choose it anew under every permutation:
    `permuted_auroc(report, ...).gather(0, permuted_auroc(calibration, ...).argmax(0, keepdim=True))`, the two calls with
    different seeds. Arguments and errors are those of `permuted_labels`; scores as in `ldm_privacy.metrics`.

    Returns:
        Tensor float64 (..., num_permutations), in [0, 1]; without groups and ties the variance is
        (members + held-out + 1) / (12 * members * held-out). O(samples log samples + num_permutations * samples) a row.
    """
    score, is_member = check_scores(score, is_member)
    label = permuted_labels(is_member, num_permutations=num_permutations, group=group, seed=seed)
    return auroc_of_labels(score, label.to(score.device))


def auroc_of_labels(score: Tensor, label: Tensor) -> Tensor:
    """AUROC of each row under each labelling: (..., samples) finite scores and (labellings, samples), both labels in each.

    As `permuted_auroc`, of labellings that serve several calls: float64 (..., labellings). Labels may be float64, 1 = member,
    which spares what it takes to make them that.
    """
    num_samples, num_members = label.shape[-1], label.sum(dim=-1).double()
    parts = []
    for rows in row_chunks(score):
        # Sums of doubled ranks stay below 2^53 for up to 90 million samples: exact in float64.
        ordered = Ordered(rows.cpu().numpy())
        twice_rank = torch.from_numpy(ordered.by_sample(ordered.counted() + 1)).to(score.device)
        parts.append(torch.cat([twice_rank @ chunk.double().T for chunk in row_chunks(label)], dim=-1))
    twice_num_in_order = torch.cat(parts) - num_members * (num_members + 1)
    area = twice_num_in_order / (2 * num_members * (num_samples - num_members))
    return area.reshape(*score.shape[:-1], len(label))


def null_band(value: float, permuted: Tensor, confidence: float = 0.95) -> NullBand:
    """The central band of permuted AUROCs and the p-value of an observed one.

    The band runs from the k-th smallest to the k-th largest of P permuted values, k = floor((P + 1) (1 - confidence) /
    2): a value that knows nothing is outside with probability <= 1 - confidence, for every P. Where k is 0 (fewer than
    39 permutations at 95 %) it is [0, 1]. `p = (1 + #{permuted >= value}) / (1 + P)` (Phipson & Smyth, Statistical
    Applications in Genetics and Molecular Biology 2010): never 0, and valid for every P.

    `permuted`: (num_permutations,) of the same scores as `value`, chosen in the same way.
    """
    tail = (1.0 - check_share("confidence", confidence)) / 2
    ordered = permuted.flatten().double().sort().values
    num_permutations = len(ordered)
    place = int((num_permutations + 1) * tail * (1 + 1e-12))
    lower, upper = (float(ordered[place - 1]), float(ordered[-place])) if place else (0.0, 1.0)
    return NullBand(lower, upper, (1 + int((ordered >= value).sum())) / (1 + num_permutations))
