"""Whose trajectories are followed: captions of three groups, the same at every look and for any number of processes."""

from dataclasses import dataclass
from hashlib import blake2b

import torch
from torch import Tensor

from ldm_privacy.audit.samples import AuditedSamples
from ldm_privacy.errors import UserError
from ldm_privacy.processes import gather
from ldm_privacy.randomness import uniform
from ldm_privacy.types import Condition

CAPTION_GROUPS = ("members", "repeated", "heldout")
"""Members that are drawn once in an epoch; planted duplicates; held-out samples."""


@dataclass(frozen=True, eq=False)
class FollowedCaptions:
    """Those that are followed, among all audited samples of all processes; on the CPU.

    Attributes:
        samples: One of each followed caption.
        index: (audited,) int64, ascending: all audited samples.
        group: (audited,) int64, a place in `CAPTION_GROUPS`.
        condition: (audited,) int64: equal where samples are told the same.
    """

    samples: AuditedSamples
    index: Tensor
    group: Tensor
    condition: Tensor

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def sample_index(self) -> Tensor:
        """(captions,) int64, ascending."""
        return self.samples.sample_index

    def group_of(self, sample_index: Tensor) -> Tensor:
        """`group` of audited samples."""
        return self.group[torch.searchsorted(self.index, sample_index)]

    def condition_of(self, sample_index: Tensor) -> Tensor:
        """`condition` of audited samples."""
        return self.condition[torch.searchsorted(self.index, sample_index)]

    @property
    def num_members(self) -> Tensor:
        """(captions,) int64: audited members that are told the same."""
        members = self.condition[self.group != CAPTION_GROUPS.index("heldout")]
        return (self.condition_of(self.sample_index)[:, None] == members).sum(1)

    @property
    def unit(self) -> Tensor:
        """(captions,) int64: what intervals resample whole: captions that share words, or a patient, directly or in a chain."""
        told = self.condition_of(self.sample_index)
        return linked(told) if self.samples.group is None else linked(told, self.samples.group)


def groups_of(samples: AuditedSamples) -> Tensor:
    """(samples,) int64, a place in `CAPTION_GROUPS` each."""
    is_repeated = torch.zeros_like(samples.is_member) if samples.repeats is None else samples.repeats > 1
    return torch.where(samples.is_member, is_repeated.long(), 2)


def chosen_captions(samples: AuditedSamples, num_captions: int, seed: int) -> FollowedCaptions:
    """At most so many captions of each group (see `choice`). All processes call it, each with its share.

    Raises:
        UserError: Members have fewer than two different captions.
    """
    table = (torch.cat(each) for each in zip(*gather(_columns(samples))))
    index, group, condition = table
    places = choice(index, group, condition, num_captions, seed)
    is_chosen = torch.isin(samples.sample_index, index[places].to(samples.sample_index.device))
    return FollowedCaptions(samples.rows(is_chosen).gathered(everywhere=True), index, group, condition)


def num_chosen(samples: AuditedSamples, num_captions: int, seed: int) -> list[int]:
    """Captions of each group that `chosen_captions` would take of these samples alone; so are errors. Not collective."""
    group = groups_of(samples).cpu()
    return group[choice(*_columns(samples), num_captions, seed)].bincount(minlength=len(CAPTION_GROUPS)).tolist()


def choice(index: Tensor, group: Tensor, condition: Tensor, num_captions: int, seed: int) -> Tensor:
    """Places of the samples whose captions are followed: of each group those of the smallest hashes of (seed, sample index).

    No caption comes twice: one that a planted duplicate has is no other member's, and one that any audited member has is no
    held-out sample's. Where that leaves fewer than two held-out captions, a member's are held-out ones' too. Raises UserError
    as `chosen_captions`.
    """
    order = uniform("trajectories", (seed, index), ()).argsort()
    told, taken, chosen = condition.tolist(), set[int](), list[int]()
    for name in ("repeated", "members", "heldout"):
        first: dict[int, int] = {}
        for place in order[group[order] == CAPTION_GROUPS.index(name)].tolist():
            first.setdefault(told[place], place)
        free = [place for each, place in first.items() if each not in taken]
        if name == "heldout":
            if len(taken) < 2:
                raise UserError(
                    f"trajectories: the audited members have {len(taken)} different captions, and 2 are needed; audit more "
                    "members (audit.max_samples), or leave watch.trajectories out."
                )
            if len(free) < 2:
                free += [place for each, place in first.items() if each in taken]
        taken |= first.keys()
        chosen += free[:num_captions]
    return torch.tensor(chosen)


def others_of(captions: FollowedCaptions, seed: int) -> Tensor:
    """For each caption the row of another one, a member's and in other words, drawn by (seed, sample index)."""
    members = captions.samples.is_member.nonzero()[:, 0]
    told = captions.condition_of(captions.sample_index)
    differs = told[members] != told[:, None]
    drawn = uniform("wrong trajectory", (seed, captions.sample_index), ())
    place = (drawn * differs.sum(1)).long()
    return members[(differs & (differs.cumsum(1) - 1 == place[:, None])).long().argmax(1)]


def conditions_of(condition: Condition) -> Tensor:
    """(samples,) int64, a hash of all that each sample is told: equal where it is, in every process."""
    rows = torch.cat([value.cpu().reshape(len(value), -1).double() for value in condition.values()], 1).numpy() + 0.0
    return torch.tensor(
        [int.from_bytes(blake2b(row.tobytes(), digest_size=8).digest(), "big", signed=True) for row in rows], dtype=torch.int64
    )


def linked(*labels: Tensor) -> Tensor:
    """(samples,) int64: equal where samples share a label of any kind, directly or through others."""
    unit = torch.arange(len(labels[0]))
    while True:
        before = unit
        for label in labels:
            number = label.unique(return_inverse=True)[1]
            unit = torch.full_like(unit, len(unit)).scatter_reduce(0, number, unit, "amin")[number]
        if torch.equal(unit, before):
            return unit


def _columns(samples: AuditedSamples) -> tuple[Tensor, Tensor, Tensor]:
    return samples.sample_index.cpu(), groups_of(samples).cpu(), conditions_of(samples.condition)
