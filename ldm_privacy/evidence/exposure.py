"""Which images are exposed: members by their membership score, and how well attacks agree on them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ldm_privacy.audit.kept import KeptScores
from ldm_privacy.audit.report import AuditReport
from ldm_privacy.metrics import TopOverlap, rank_agreement, top_overlap
from ldm_privacy.types import AuditKey, Estimate


@dataclass(frozen=True)
class Exposure:
    """Every audited member, the most exposed first.

    Attributes:
        key: The attack and mask that rank.
        sample_index: (members,).
        score: (members,) membership score at the timestep of the report.
        fpr: (members,) (k + 1) / (n + 1), k of the n reported held-out samples scoring at least as high: an image that was
            never seen gets a value of a or less with a chance of at most a.
        is_calibration: (members,) bool: had a say in the timestep, so its rank is a little flattered.
        num_above_all: Members that score above every reported held-out sample.
    """

    key: AuditKey
    sample_index: Tensor
    score: Tensor
    fpr: Tensor
    is_calibration: Tensor
    num_above_all: int


def exposure_of(report: AuditReport, key: AuditKey) -> Exposure:
    """Rank the members of both halves by their score; ties by sample index. Exact; no network passes."""
    data, score = report.data, report.scores_at(key)
    heldout = score[~data.is_member & report.is_reporting].sort().values
    member = score[data.is_member]
    order = member.sort(descending=True, stable=True).indices
    num_as_high = len(heldout) - torch.searchsorted(heldout, member[order], side="left")
    fpr = (num_as_high + 1).double() / (len(heldout) + 1)
    index, calibration = (each[data.is_member][order] for each in (data.sample_index, data.is_calibration))
    return Exposure(key, index, member[order], fpr, calibration, int((num_as_high == 0).sum()))


TOP_SHARE = 0.1


class Agreement(NamedTuple):
    """Whether two attacks point at the same members: of their ranks, and of the most exposed `TOP_SHARE` of them."""

    correlation: Estimate
    top: TopOverlap


def attack_agreement(report: AuditReport, key: AuditKey) -> dict[AuditKey, Agreement]:
    """Spearman correlation of the members' scores under `key` with those under each other unmasked attack, and their overlap.

    High where attacks point at the same images; attacks that share no members' ranks measure different things, or noise.
    """
    data = report.data
    member = data.is_member
    if report.is_constant(key):
        return {}
    own, found = report.scores_at(key)[member], {}
    for other in report.unmasked:
        if other.attack != key.attack and not report.is_constant(other):
            score = report.scores_at(other)[member]
            found[other] = Agreement(rank_agreement(own, score), top_overlap(own, score, TOP_SHARE))
    return found


def epoch_agreement(report: AuditReport, key: AuditKey, history: Mapping[int, KeptScores]) -> dict[int, Estimate]:
    """Spearman correlation of the members' scores at each earlier audit with those of `report`, on the members of both.

    Near 0 while the denoiser knows nothing; how soon it rises says how early the images that end up exposed could be seen.

    Args:
        report: The last audit.
        key: Attack and mask of all of them.
        history: Epoch -> scores; epochs without that key are left out.
    """
    data, last = report.data, report.scores_at(key)
    found = {}
    for epoch, kept in history.items():
        if key not in kept.standing:
            continue
        shared = data.is_member & torch.isin(data.sample_index, kept.sample_index)
        earlier, now = kept.at(data.sample_index[shared]).standing[key], last[shared]
        if len(now) >= 4 and earlier.min() < earlier.max() and now.min() < now.max():
            found[epoch] = rank_agreement(earlier, now)
    return found
