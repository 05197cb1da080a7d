"""Memorized generations: how many generated images are copies of members, with held-out images as the control."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import stats
from torch import Tensor

from ldm_privacy.errors import UserError
from ldm_privacy.metrics.checks import check_share
from ldm_privacy.metrics.neighbours import Neighbours, nearest_two
from ldm_privacy.metrics.resampling import bootstrap_generator, clopper_pearson, percentiles
from ldm_privacy.randomness import uniform
from ldm_privacy.types import Done, Estimate, Image, Images

COPY_RATIO = 1 / 3
"""A generation whose nearest image is less than this many times as far away as its second nearest is called a copy."""


@dataclass(frozen=True)
class GenerationCopies:
    """What a set of generated images copies.

    Attributes:
        ratio: (generations,) float64 in [0, 1]: nearest-neighbour ratio among all members.
        nearest_member: (generations,) sample index of the nearest member.
        memorized: Share of generations with a ratio below 1/3 among all members.
        heldout: The same share among the held-out images of the control: false matches.
        num_control: Members, and held-out images, in the paired comparison: as many as the smaller side has.
        num_members_copied: Distinct members (or groups) of the paired comparison copied by a generation that copies no
            held-out image.
        num_heldout_copied: The same with the two sides exchanged.
    """

    ratio: Tensor
    nearest_member: Tensor
    memorized: Estimate
    heldout: Estimate
    num_control: int
    num_members_copied: int
    num_heldout_copied: int

    @property
    def num_copies(self) -> int:
        """Generations that copy a member."""
        return int((self.ratio < COPY_RATIO).sum())

    def numbers(self) -> dict[str, Estimate | int]:
        """For metrics.json."""
        return {"memorized": self.memorized, "heldout": self.heldout, "num_copies": self.num_copies}

    def rise(self, confidence: float) -> Estimate:
        """How far copies prefer members to held-out images; see `copies_rise`."""
        return copies_rise(self.num_members_copied, self.num_heldout_copied, confidence=confidence)

    def series(self) -> dict[str, float]:
        """The curves, as logged at every look."""
        return {
            **self.memorized.series("generations/memorized"),
            **self.heldout.series("generations/memorized_heldout"),
            "generations/num_members_copied": float(self.num_members_copied),
            "generations/num_heldout_copied": float(self.num_heldout_copied),
        }


def memorized_generations(
    generated: Image,
    images: Images,
    member_index: Tensor,
    heldout_index: Tensor,
    *,
    groups: Callable[[Tensor], Tensor | None] = lambda sample_index: None,
    confidence: float = 0.95,
    num_bootstrap: int = 1000,
    seed: int = 0,
    batch_size: int | None = None,
    progress: Done = lambda done, total=None: None,
) -> GenerationCopies:
    """The share of generations that are copies: `||g - NN1|| / ||g - NN2|| < 1/3` in pixel space among the members.

    NN1 and NN2 are the nearest and second nearest member of g. The ratio asks for a member that is exceptionally near, not
    merely near, so a dull image that is near everything is no copy (Yoon et al. 2023, ICML workshop SPIGM; Bonnaire
    et al. 2025, arXiv 2505.17638). Two members that are copies of each other hide the copies made of them: then NN1 and
    NN2 are equally near and the ratio is near 1, so the share counts the members that stand alone.

    The control is the same share among held-out images. It is compared on equal terms: the ratio depends on how many
    images there are, so members and held-out images are both cut to the size of the smaller side, those with the
    smallest hash of (seed, sample index). `memorized` itself counts copies of any member.

    Intervals are over generations, given the two sets: percentiles of the bootstrap, whose law for a share p of n is
    Binomial(n, p) / n; Clopper-Pearson's exact ones where the share is 0 or 1. No network passes; generations x (members +
    held-out) distances.

    Args:
        generated: (generations, image_channels, image_height, image_width) in [-1, 1], 1,000 or more for a share that
            means something.
        images: Sample indices -> images like them.
        member_index, heldout_index: (members,), (held-out,) int64.
        groups: Sample indices -> labels, or None; copies are then counted once per group in `rise`.
        confidence, num_bootstrap, seed: As in `ldm_privacy.metrics`; `seed` also of the choice for the comparison.
        batch_size: Reference images at a time; see `nearest_two`. Beside them are a few times the generations.
        progress: Called with (reference images done, in all).

    Raises:
        UserError: fewer than two members or held-out images; a generated image that is not finite.
    """
    check_share("confidence", confidence)
    for name, index in (("members", member_index), ("held-out images", heldout_index)):
        if len(index) < 2:
            raise UserError(f"{len(index)} {name}: the nearest-neighbour ratio needs at least two.")
    if not generated.isfinite().all():
        place = int((~generated.flatten(1).isfinite().all(1)).nonzero()[0])
        raise UserError(f"generated image {place} is not finite: lower the learning rate, or generate in float32.")
    num_control = min(len(member_index), len(heldout_index))
    members, other_members = _cut(member_index, num_control, seed)
    heldout, _ = _cut(heldout_index, num_control, seed)
    total = len(member_index) + num_control

    def search(index: Tensor, num_before: int) -> Neighbours:
        return nearest_two(
            generated, images, index, batch_size=batch_size, progress=lambda done: progress(num_before + done, total)
        )

    among_all = among_members = search(members, 0)
    among_heldout = search(heldout, num_control)
    if len(other_members):
        among_all = among_members.merged(search(other_members, 2 * num_control))
    num_members_copied, num_heldout_copied = discordant_copies(among_members, among_heldout, groups)

    def interval(ratio: Tensor, purpose: str) -> Estimate:
        num_copies, generator = int((ratio < COPY_RATIO).sum()), bootstrap_generator(purpose, seed)
        return share_interval(num_copies, len(ratio), confidence=confidence, num_bootstrap=num_bootstrap, generator=generator)

    return GenerationCopies(
        ratio=among_all.ratio,
        nearest_member=among_all.sample_index[:, 0],
        memorized=interval(among_all.ratio, "memorized"),
        heldout=interval(among_heldout.ratio, "memorized control"),
        num_control=num_control,
        num_members_copied=num_members_copied,
        num_heldout_copied=num_heldout_copied,
    )


def discordant_copies(
    among_members: Neighbours, among_heldout: Neighbours, groups: Callable[[Tensor], Tensor | None] = lambda sample_index: None
) -> tuple[int, int]:
    """Distinct members (or groups) copied by a generation that copies no held-out image, and the same the other way round."""
    copies_member, copies_heldout = among_members.ratio < COPY_RATIO, among_heldout.ratio < COPY_RATIO

    def num_distinct(sample_index: Tensor) -> int:
        label = groups(sample_index)
        return len((sample_index if label is None else label).unique())

    return (
        num_distinct(among_members.sample_index[copies_member & ~copies_heldout, 0]),
        num_distinct(among_heldout.sample_index[copies_heldout & ~copies_member, 0]),
    )


def copies_rise(num_members_copied: int, num_heldout_copied: int, *, confidence: float) -> Estimate:
    """How far copies prefer members to held-out images: b / (b + c) - 1/2 with its one-sided exact lower bound.

    b members and c held-out images are copied (`discordant_copies`). Where no generation depends on who is a member, each
    image (group) that is copied is a member as likely as not, so b is Binomial(b + c, 1/2) and the bound is Clopper &
    Pearson's (Biometrika 1934), one-sided: `BetaInv(1 - confidence; b, c + 1) - 1/2`. Generations are not the trials: a
    generator that likes one picture near a member repeats it, and all repeats fall on one side by one chance (see
    `OnsetDetector` for what counting them does to the false alarms). Without any discordant copy the value is 0 and the
    bound -1/2.
    """
    tail = 1.0 - check_share("confidence", confidence)
    b, c = num_members_copied, num_heldout_copied
    lower = float(stats.beta.ppf(tail, b, c + 1)) if b else 0.0
    return Estimate(b / (b + c) - 0.5 if b + c else 0.0, lower - 0.5, 0.5)


def share_interval(
    num_hits: int, num_trials: int, *, confidence: float, num_bootstrap: int, generator: np.random.Generator
) -> Estimate:
    """A share with its percentile-bootstrap interval; the exact binomial one where the share is 0 or 1."""
    if num_hits in (0, num_trials):
        return clopper_pearson(num_hits, num_trials, confidence=confidence)
    share = num_hits / num_trials
    # A resample of n zeros and ones has Binomial(n, share) ones: the same law as resampling them.
    draws = generator.binomial(num_trials, share, size=num_bootstrap) / num_trials
    return Estimate(share, *percentiles(draws, confidence))


def _cut(sample_index: Tensor, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """`count` samples chosen by a hash of their index, and the others; both ascending."""
    order = uniform("generations", (seed, sample_index.cpu()), ()).argsort()
    chosen, others = sample_index.cpu()[order].tensor_split([count])
    return chosen.sort().values, others.sort().values
