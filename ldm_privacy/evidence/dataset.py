"""The members as one set: does it stand out from held-out samples, and how many members does that take?"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ldm_privacy.audit.report import AuditReport
from ldm_privacy.metrics import PValueAtSize, WelchVerdict, choice_widening, holm, p_value_by_set_size, welch_verdict
from ldm_privacy.randomness import uniform
from ldm_privacy.types import AuditKey

NUM_HALVINGS = 100


@dataclass(frozen=True)
class DatasetVerdict:
    """The members as a suspect set against the held-out samples, all that report.

    Attributes:
        test: One-sided Welch test of the scores of one key, what the verdict rests on.
        by_size: How the p-value falls with the size of the suspect set.
        false_alarms: By size, the share of sets of held-out samples that the same test tells from other held-out samples. Small
            sets of skewed scores don't obey the t distribution: where this is above the level, the p-value can't be believed.
        adjusted: Holm-adjusted p-value of the same test for every row of the audit, tested together.
    """

    test: WelchVerdict
    by_size: list[PValueAtSize]
    false_alarms: dict[int, float]
    adjusted: dict[AuditKey, float]


def dataset_verdict(report: AuditReport, key: AuditKey, *, seed: int = 0) -> DatasetVerdict | None:
    """The verdict on the members as a set; None where the key gives every sample the same score.

    Args:
        report: Of the audit.
        key: Attack and mask that the verdict rests on.
        seed: Of the random subsets.
    """
    if report.is_constant(key):
        return None
    is_member, group = report.reported_membership, report.reported_group
    groups: dict[str, Any] = {} if group is None else {"suspect_group": group[is_member], "heldout_group": group[~is_member]}

    # What was chosen, or fitted, crosswise spreads the means as it spreads the AUROC.
    widening = {row.key: choice_widening(report.halves[row.key], report.confidence) for row in report.rows}

    def sides(row: AuditKey) -> tuple[Tensor, Tensor]:
        score = report.reported_scores(row)
        return score[is_member], score[~is_member]

    tests = {
        row.key: welch_verdict(*sides(row.key), confidence=report.confidence, widening=widening[row.key], **groups)
        for row in report.rows
        if not report.is_constant(row.key)
    }
    adjusted = dict(zip(tests, holm([test.p_value for test in tests.values()])))
    most = tests[key].num_suspect
    sizes = set_sizes(most)
    alpha = 1 - report.confidence
    by_size = p_value_by_set_size(*sides(key), sizes, alpha=alpha, seed=seed, widening=widening[key], **groups)
    false_alarms = false_alarms_of(sides(key)[1], groups.get("heldout_group"), sizes, alpha, seed)
    return DatasetVerdict(tests[key], by_size, false_alarms, adjusted)


def set_sizes(most: int) -> list[int]:
    """Powers of two and halfway between, from 2 up to and with `most`."""
    return sorted({size for power in range(1, 20) for size in (2**power, 3 * 2 ** (power - 1)) if size < most} | {most})


def false_alarms_of(score: Tensor, group: Tensor | None, sizes: list[int], alpha: float, seed: int) -> dict[int, float]:
    """Held-out samples against held-out samples: each of `NUM_HALVINGS` random halves in the part of the suspect set.

    By size, as far as a half has so many samples (groups), the share of sets with a p-value below alpha.
    """
    unit = torch.arange(len(score)) if group is None else torch.unique(group, return_inverse=True)[1]
    num_units = int(unit.max()) + 1
    possible = [size for size in sizes if size <= num_units // 2]
    power: dict[int, list[float]] = {size: [] for size in possible}
    for number in range(NUM_HALVINGS if possible else 0):
        order = uniform("halving", (seed, number, torch.arange(num_units)), ()).argsort()
        suspect = torch.isin(unit, order[: num_units // 2])
        halves = score[suspect], score[~suspect]
        if any(bool(half.min() == half.max()) for half in halves):
            return {}
        groups: dict[str, Any] = {} if group is None else {"suspect_group": group[suspect], "heldout_group": group[~suspect]}
        for point in p_value_by_set_size(*halves, possible, alpha=alpha, num_draws=4, seed=number, **groups):
            power[point.size].append(point.power)
    return {size: sum(shares) / len(shares) for size, shares in power.items()}
