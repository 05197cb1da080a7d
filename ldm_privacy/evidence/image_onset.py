"""When each image was memorized: from which audit on it stands above a fixed share of the held-out images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from ldm_privacy.audit.kept import KeptScores
from ldm_privacy.audit.report import AuditReport
from ldm_privacy.evidence.image_fpr import compared_in, heldout_ranks
from ldm_privacy.metrics import clopper_pearson
from ldm_privacy.types import AuditKey, Estimate

NUM_CONSECUTIVE = 2


@dataclass(frozen=True)
class ImageOnsets:
    """The onset of every audited image. Held-out images run through the same rule: theirs are false alarms.

    Attributes:
        times: Of the audits, ascending: epochs, or steps.
        share: Of the held-out images that an image must stand above, and for `num_consecutive` audits in a row.
        confidence: Of `earliest` and `latest`, and of the intervals of shares.
        is_member, is_heldout: (samples,) bool; held-out images that nobody is compared with are of neither.
        is_above: (audits, samples) bool.
        onset: (samples,) place among `times` of the first of those audits; len(times) where there was none.
        earliest, latest: (samples,) the same with the bar at the confidence bounds of the share's quantile, whose true place
            some hundred held-out images leave open: earliest <= onset <= latest. Each audit's bound is by itself.
    """

    times: tuple[int, ...]
    share: float
    num_consecutive: int
    confidence: float
    is_member: Tensor
    is_heldout: Tensor
    is_above: Tensor
    onset: Tensor
    earliest: Tensor
    latest: Tensor

    def time(self, place: int) -> int | None:
        """The audit at that place; None past the last."""
        return self.times[place] if place < len(self.times) else None

    def reached(self, side: Tensor) -> list[Estimate]:
        """For each audit the share of one side's images with an onset up to it; exact binomial (Clopper-Pearson) bounds."""
        onset, num_images = self.onset[side], int(side.sum())
        return [self._share(int((onset <= place).sum()), num_images) for place in range(len(self.times))]

    @cached_property
    def is_listed(self) -> Tensor:
        """(audits, samples) bool: stands above at this audit and at the `num_consecutive - 1` before it."""
        held = _held(self.is_above, self.num_consecutive)
        return torch.cat([torch.zeros_like(self.is_above[: self.num_consecutive - 1]), held])

    @property
    def ends_exposed(self) -> Tensor:
        """(samples,) bool: listed at the last audit."""
        return self.is_listed[-1]

    @cached_property
    def precision(self) -> list[Estimate | None]:
        """For each audit: of the members listed then, the share that ends as exposed; None where none is listed."""
        return self._of_those_that_end(self.is_listed[:, self.is_member].sum(1).tolist())

    @cached_property
    def recall(self) -> list[Estimate | None]:
        """For each audit: of the members that end as exposed, the share that is listed already; None where none does,
        and at the first audits, which can list nobody."""
        num_exposed, before = int((self.ends_exposed & self.is_member).sum()), self.num_consecutive - 1
        return self._of_those_that_end([0] * before + [num_exposed] * (len(self.times) - before))

    def _of_those_that_end(self, num_images: Sequence[int]) -> list[Estimate | None]:
        num_both = (self.is_listed & self.ends_exposed & self.is_member).sum(1).tolist()
        return [self._share(both, count) if count else None for both, count in zip(num_both, num_images)]

    def _share(self, num_hits: int, num_images: int) -> Estimate:
        return clopper_pearson(num_hits, num_images, confidence=self.confidence)

    @property
    def false_alarms(self) -> tuple[float, float]:
        """`expected_false_alarms` by the last audit."""
        return expected_false_alarms(len(self.times), self.share, self.num_consecutive)


def image_onsets(
    times: Sequence[int],
    standing: Tensor,
    is_member: Tensor,
    half: Tensor,
    *,
    is_compared: Tensor | None = None,
    share: float = 0.95,
    num_consecutive: int = NUM_CONSECUTIVE,
    confidence: float = 0.95,
) -> ImageOnsets:
    """The onset of each image: the first audit of `num_consecutive` in a row at which it stands above `share` of the held-out.

    It stands above where (k + 1) / (n + 1) <= 1 - share, k of the n held-out images of its half scoring at least as high
    (`heldout_ranks`): an image that was never seen does at one audit with a chance of at most 1 - share. The onset is known
    only at the last of these audits, so a shorter run at the end is none. Once found it stays, also where the image falls
    back later; `is_listed` says who stands above at the time.

    Uncertainty is that of the quantile. Of n held-out images Binomial(n, 1 - share) lie above its true place, so an image with
    fewer above it than that count's lower bound is surely past it (`latest`), and one with more than its upper bound surely is
    not (`earliest`), each with a chance of at most (1 - confidence) / 2 of being wrong.

    Images that are easy for any denoiser stand high from the first audit on, held-out ones as often: an onset there says
    nothing of memorization.

    Args:
        times: Of the audits, ascending.
        standing: (audits, samples), higher = member.
        is_member, half: (samples,) bool.
        is_compared: (samples,) bool: held-out images that count; by default all.

    No randomness, no network passes; O(audits * samples * log samples).

    Raises:
        ValueError: A row of `standing` is missing, there are fewer audits than `num_consecutive`, or their times do
            not ascend.
    """
    times = tuple(times)
    if standing.shape != (len(times), len(is_member)) or len(times) < num_consecutive or sorted({*times}) != [*times]:
        raise ValueError(f"standing is {tuple(standing.shape)} for {len(is_member)} samples and audits at {times}")
    heldout = ~is_member if is_compared is None else is_compared & ~is_member
    ranks = heldout_ranks(standing, heldout, half)
    loose, allowed, strict = (ranks.num_as_high <= most for most in _most_above(ranks.num_compared, share, confidence))
    onset, earliest, latest = (first_held(each, num_consecutive) for each in (allowed, loose, strict))
    return ImageOnsets(times, share, num_consecutive, confidence, is_member, heldout, allowed, onset, earliest, latest)


def onsets_of(report: AuditReport, key: AuditKey, history: Mapping[int, KeptScores], time: int) -> ImageOnsets | None:
    """The onsets of an audit's samples; None where there are not enough earlier audits to tell one.

    Args:
        report: Of the last audit.
        key: Attack and mask of all of them.
        history: Earlier audits by their time. Those without that key, or without one of the samples, are left out.
        time: Of the last audit.
    """
    data = report.data
    earlier = {
        at: kept.at(data.sample_index).standing[key]
        for at, kept in sorted(history.items())
        if key in kept.standing and kept.has(data.sample_index)
    }
    if len(earlier) < NUM_CONSECUTIVE:
        return None
    is_compared, half = compared_in(report)
    standing = torch.stack([*(each.double() for each in earlier.values()), report.scores_at(key).double()])
    return image_onsets((*earlier, time), standing, data.is_member, half, is_compared=is_compared, confidence=report.confidence)


def expected_false_alarms(num_audits: int, share: float, num_consecutive: int) -> tuple[float, float]:
    """The chance that an image that was never seen has an onset: if audits were independent, and at most.

    Independent: that p = 1 - share comes `num_consecutive` times in a row in `num_audits` trials. At most, however audits
    depend on each other: num_audits p / num_consecutive, since every onset takes as many of the num_audits p audits at which
    the image is expected to stand above. Scores of one training depend strongly; the truth lies between the two.
    """
    chance = 1.0 - share
    by_run, found = [1.0] + [0.0] * (num_consecutive - 1), 0.0
    for _ in range(num_audits):
        found += chance * by_run[-1]
        by_run = [share * sum(by_run), *(chance * each for each in by_run[:-1])]
    return found, min(1.0, num_audits * chance / num_consecutive)


def _most_above(num_compared: Tensor, share: float, confidence: float) -> tuple[Tensor, Tensor, Tensor]:
    """How many held-out images may score as high, of that many: with the bar at its lowest, where it is, at its highest."""
    sizes, size = num_compared.unique(return_inverse=True)
    count, chance, tail = sizes.numpy(), 1.0 - share, (1.0 - confidence) / 2
    allowed = np.floor(chance * (count + 1) * (1 + 1e-12)) - 1
    loose = np.maximum(stats.binom.isf(tail, count, chance), allowed)
    strict = stats.binom.ppf(tail, count, chance)
    strict = np.minimum(strict - (stats.binom.cdf(strict, count, chance) > tail), allowed)
    bars = torch.from_numpy(np.stack([loose, allowed, strict]))[:, size]
    return bars[0], bars[1], bars[2]


def _held(flag: Tensor, num_consecutive: int) -> Tensor:
    """(audits - num_consecutive + 1, samples) bool: the flag stands at this audit and the ones after it."""
    return flag.unfold(0, num_consecutive, 1).all(-1)


def first_held(flag: Tensor, num_consecutive: int) -> Tensor:
    """(samples,) place of the first audit of `num_consecutive` in a row at which the flag (audits, samples) stands."""
    held = _held(flag, num_consecutive)
    return torch.where(held.any(0), held.byte().argmax(0), len(flag))
