"""Which images are exposed: members by their membership score, and how early they could be seen."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ldm_privacy.audit.kept import KeptScores
from ldm_privacy.audit.report import AuditReport
from ldm_privacy.evidence.image_fpr import compared_in, heldout_ranks
from ldm_privacy.metrics import rank_agreement
from ldm_privacy.types import AuditKey, Estimate


@dataclass(frozen=True)
class Exposure:
    """Every audited member, the most exposed first.

    Attributes:
        key: The attack and mask that rank.
        sample_index: (members,).
        score: (members,) `AuditReport.scores_at`.
        fpr: (members,) (k + 1) / (n + 1), k of the n held-out samples reported by the same half scoring at least as high: an
            image that was never seen gets a value of a or less with a chance of at most a.
        is_calibration: (members,) bool: of the calibration half. With one fold it had a say in what was chosen, so its rank is
            a little flattered.
        num_above_all: Members that score above every held-out sample of their half.
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
    order = score[data.is_member].sort(descending=True, stable=True).indices
    ranks = heldout_ranks(score, *compared_in(report))
    columns = (data.sample_index, score, ranks.fpr, data.is_calibration, ranks.num_as_high)
    index, member, fpr, calibration, num_as_high = (each[data.is_member][order] for each in columns)
    return Exposure(key, index, member, fpr, calibration, int((num_as_high == 0).sum()))


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
            found[epoch] = rank_agreement(earlier, now, confidence=report.confidence)
    return found
