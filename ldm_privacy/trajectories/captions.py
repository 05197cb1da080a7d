"""Whose trajectories are followed: captions of three groups, the same at every look and for any number of processes."""

import torch
from torch import Tensor

from ldm_privacy.audit.samples import AuditedSamples
from ldm_privacy.processes import gather
from ldm_privacy.randomness import uniform

GROUPS = ("members", "repeated", "heldout")
"""Members that are drawn once in an epoch; planted duplicates; held-out samples."""


def groups_of(samples: AuditedSamples) -> Tensor:
    """(samples,) int64, a place in `GROUPS` each."""
    is_repeated = torch.zeros_like(samples.is_member) if samples.repeats is None else samples.repeats > 1
    return torch.where(samples.is_member, is_repeated.long(), 2)


def chosen_captions(samples: AuditedSamples, num_captions: int, seed: int) -> AuditedSamples:
    """At most so many samples of each group, those of the smallest hashes of (seed, sample index); all, in every process.

    On the CPU. All processes call it, each with its share.
    """
    index, group = (torch.cat(each) for each in zip(*gather((samples.sample_index.cpu(), groups_of(samples).cpu()))))
    order = uniform("trajectories", (seed, index), ()).argsort()
    chosen = torch.cat([order[group[order] == each][:num_captions] for each in range(len(GROUPS))])
    is_chosen = torch.isin(samples.sample_index, index[chosen].to(samples.sample_index.device))
    return samples.rows(is_chosen).gathered(everywhere=True)


def others_of(captions: AuditedSamples, seed: int) -> Tensor:
    """For each caption the row of another one, of a member, drawn by (seed, sample index)."""
    members, row = captions.is_member.nonzero()[:, 0], torch.arange(len(captions))
    drawn = uniform("wrong trajectory", (seed, captions.sample_index), ())
    # Of the members but the own one: those after it move up by a place.
    place = (drawn * (len(members) - captions.is_member.long())).long()
    return members[place + (captions.is_member & (place >= torch.searchsorted(members, row))).long()]
