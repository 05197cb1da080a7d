"""Trainings made by hand: audits of a chosen strength and quality."""

import torch

from ldm_privacy.audit.kept import KeptScores
from ldm_privacy.audit.samples import is_calibration
from ldm_privacy.evidence.strongest import Strongest, strongest
from ldm_privacy.evidence.trainings import Point, Training
from ldm_privacy.types import AuditKey, Estimate, Intervals

DRAWS = Intervals(num_bootstrap=200)
KEY = AuditKey("sima", "all")


def quality(value, error=0.0):
    """A quality with that standard error."""
    return Estimate(value, value - 1.959964 * error, value + 1.959964 * error)


def samples(count, seed):
    """Sample indices and who is a member: as many as are not, dealt out at random by the seed."""
    index = torch.arange(2 * count) * 3
    return index, torch.randperm(2 * count, generator=torch.Generator().manual_seed(seed)) < count


def audit(strength, *, seed, cell=0, epoch=0, count=64, own=0.5, num_candidates=1, shuffle=None):
    """An audit's strongest attack: part of a score is the sample's own in every cell, part is the cell's and the epoch's."""
    index, is_member = samples(count, seed)
    of_sample = torch.randn(num_candidates, 2 * count, generator=torch.Generator().manual_seed(1000 + seed))
    generator = torch.Generator().manual_seed(7919 * seed + 104729 * cell + epoch)
    noise = torch.randn(num_candidates, 2 * count, generator=generator)
    score = (1 - own**2) ** 0.5 * of_sample + own * noise + strength * is_member
    order = torch.arange(2 * count) if shuffle is None else torch.randperm(2 * count, generator=shuffle)
    kept = KeptScores(index[order], {"sima": list(range(num_candidates))}, {KEY: score[None][..., order]}, {})
    return strongest(kept, is_member[order], is_calibration(index[order]), intervals=DRAWS), is_member


def training(curve, *, seed, cell=0, error=0.0, has_ended=True, **options):
    """A training of audits (strength, quality), one every ten epochs."""
    found = [audit(strength, seed=seed, cell=cell, epoch=10 * place, **options) for place, (strength, _) in enumerate(curve)]
    points = [Point(10 * place, each, quality(level, error)) for place, ((each, _), (_, level)) in enumerate(zip(found, curve))]
    return Training(seed, f"{seed:064d}", points, found[0][1], has_ended=has_ended, name=f"cell-{cell}/seed-{seed}")


def at_one_half(score, is_member, index):
    """The same of one attack without anything to choose: all pairs of a member and a held-out sample, all samples together."""
    member, heldout = score[is_member], score[~is_member]
    order = (member[:, None] > heldout[None]).double()
    area, placed = float(order.mean()), torch.empty(len(score), dtype=torch.float64)
    placed[is_member], placed[~is_member] = order.mean(1) - area, order.mean(0) - area
    error = placed / torch.where(is_member, len(member), len(heldout))
    reach = 1.959964 * float(error.square().sum().sqrt())
    found = Estimate(area, area - reach, area + reach)
    return Strongest(found, found, ("sima/all at 0",), index, error, 0.0)
