"""Which members are found by which attack: together, by one alone, and what their union costs."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor

from ldm_privacy.audit.report import AuditReport
from ldm_privacy.evidence.image_fpr import HeldoutRanks, compared_in, heldout_ranks
from ldm_privacy.metrics import clopper_pearson
from ldm_privacy.types import AuditKey, Estimate

TARGET_FPR = 0.01


class Overlap(NamedTuple):
    """Of the members that either of two attacks finds, the share that both find (Jaccard).

    Attributes:
        jaccard: Exact binomial interval (Clopper-Pearson), given how many either finds.
        chance: What it would be if the two found as many members independently: a b / m common ones of m members.
    """

    jaccard: Estimate
    chance: float


@dataclass(frozen=True)
class AttackAgreement:
    """Who is found by which attack, each at the same false-positive rate.

    Attributes:
        keys: Of the attacks.
        families: (keys,) the attack that each rests on: one and its calibrated forms look at the same numbers.
        target_fpr: At which an image counts as found.
        ranks: Of all samples under each key, (keys, samples).
        is_member, is_heldout: (samples,) bool; held-out images that nobody is compared with are of neither.
        confidence: Of the intervals.
    """

    keys: tuple[AuditKey, ...]
    families: tuple[str, ...]
    target_fpr: float
    ranks: HeldoutRanks
    is_member: Tensor
    is_heldout: Tensor
    confidence: float

    @cached_property
    def is_found(self) -> Tensor:
        """(keys, samples) bool. Held-out images too: those are false positives."""
        return self.ranks.fpr <= self.target_fpr

    @cached_property
    def num_attacks(self) -> Tensor:
        """(samples,) how many attacks find the image; one and its calibrated forms count once."""
        of_family = [[name == each for each in self.families] for name in dict.fromkeys(self.families)]
        return torch.stack([self.is_found[torch.tensor(rows)].any(0) for rows in of_family]).sum(0)

    def found_by(self, samples: Tensor) -> list[list[str]]:
        """For each of the samples at those places: labels of the attacks that find it."""
        return [[key.attack for key, found in zip(self.keys, row) if found] for row in self.is_found[:, samples].T.tolist()]

    def rests_on_one(self, key: AuditKey) -> tuple[int, int]:
        """Members that `key` finds, and how many of them no attack finds but its own family."""
        found = self.is_found[self.keys.index(key)] & self.is_member
        return int(found.sum()), int((found & (self.num_attacks == 1)).sum())

    def tpr(self, key: AuditKey) -> Estimate:
        """Share of the members that it finds."""
        return self._share(self.is_found[self.keys.index(key)], self.is_member)

    def fpr(self, key: AuditKey) -> Estimate:
        """Share of the held-out images that it takes for members, each compared with the others."""
        return self._share(self.is_found[self.keys.index(key)], self.is_heldout)

    def num_alone(self, key: AuditKey) -> int:
        """Members that no other key finds."""
        return int((self.is_found[self.keys.index(key)] & (self.is_found.sum(0) == 1) & self.is_member).sum())

    @property
    def union_tpr(self) -> Estimate:
        """Share of the members that any finds."""
        return self._share(self.is_found.any(0), self.is_member)

    @property
    def union_fpr(self) -> Estimate:
        """Share of the held-out images that any takes for a member: what the union costs."""
        return self._share(self.is_found.any(0), self.is_heldout)

    def tpr_at_union_fpr(self, key: AuditKey) -> Estimate:
        """Share of the members that one attack finds when it may err as often as the union: what the union must beat."""
        allowed = max(self.target_fpr, self.union_fpr.value)
        return self._share(self.ranks.fpr[self.keys.index(key)] <= allowed, self.is_member)

    def overlap(self, first: AuditKey, second: AuditKey) -> Overlap | None:
        """Of two attacks; None where neither finds anybody."""
        one, other = (self.is_found[self.keys.index(key)] & self.is_member for key in (first, second))
        num_both, num_either = int((one & other).sum()), int((one | other).sum())
        if not num_either:
            return None
        common = int(one.sum()) * int(other.sum()) / int(self.is_member.sum())
        chance = common / (int(one.sum()) + int(other.sum()) - common)
        return Overlap(clopper_pearson(num_both, num_either, confidence=self.confidence), chance)

    @property
    def overlaps(self) -> dict[tuple[AuditKey, AuditKey], Overlap]:
        """Of every pair of which one finds somebody."""
        pairs = {(first, second): self.overlap(first, second) for first, second in combinations(self.keys, 2)}
        return {pair: overlap for pair, overlap in pairs.items() if overlap is not None}

    def intersections(self) -> list[tuple[tuple[int, ...], int]]:
        """Places of the keys that find a member, no others finding it, and of how many members so; the largest first."""
        found = self.is_found[:, self.is_member].T
        sets, count = found[found.any(1)].unique(dim=0, return_counts=True)
        places = [tuple(row.nonzero().flatten().tolist()) for row in sets]
        return sorted(zip(places, count.tolist()), key=lambda each: (-each[1], each[0]))

    def _share(self, flag: Tensor, side: Tensor) -> Estimate:
        return clopper_pearson(int((flag & side).sum()), int(side.sum()), confidence=self.confidence)


def attack_agreement(
    keys: Sequence[AuditKey],
    score: Tensor,
    is_member: Tensor,
    half: Tensor,
    *,
    families: Sequence[str] | None = None,
    is_compared: Tensor | None = None,
    target_fpr: float = TARGET_FPR,
    confidence: float = 0.95,
) -> AttackAgreement:
    """Which members each attack finds at one false-positive rate.

    A member is found where (k + 1) / (n + 1) is at most the target, k of the n held-out images of its half scoring at least as
    high (`heldout_ranks`). Where the half has too few for that, the target is the smallest that can be resolved, 1 / n.

    Args:
        keys: Of the attacks.
        score: (keys, samples), higher = member.
        is_member, half: (samples,) bool.
        families: The attack that each key rests on; by default its own.
        is_compared: (samples,) bool: held-out images that count; by default all.
        target_fpr: Wished for.
        confidence: Of the intervals.

    No randomness, no network passes.
    """
    heldout = ~is_member if is_compared is None else is_compared & ~is_member
    ranks = heldout_ranks(score, heldout, half)
    target = max(target_fpr, 1 / int(ranks.num_compared[is_member].min()))
    families = tuple(families or (key.attack for key in keys))
    return AttackAgreement(tuple(keys), families, target, ranks, is_member, heldout, confidence)


def agreement_of(report: AuditReport, key: AuditKey) -> AttackAgreement | None:
    """Of every unmasked attack, every calibrated one, and `key`; None where none of them tells samples apart."""
    derived = report.data.derived
    wanted = {key, *report.unmasked, *derived}
    keys = [row.key for row in report.rows if row.key in wanted and not report.is_constant(row.key)]
    if not keys:
        return None
    is_compared, half = compared_in(report)
    return attack_agreement(
        keys,
        torch.stack([report.scores_at(each).double() for each in keys]),
        report.data.is_member,
        half,
        families=[derived[each].plain.attack if each in derived else each.attack for each in keys],
        is_compared=is_compared,
        confidence=report.confidence,
    )
