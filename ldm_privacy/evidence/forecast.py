"""When a training is to be expected to memorize, from the audits of others, and what came of it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

FACTOR = 2.0
"""Bounds reach so many times further than the audits that they rest on, each way. A judgement, not a measurement: of two runs
of one config, one on 400 members was found memorizing by epoch 50 and one on 2,000 by epoch 100 (docs/cifar10.md), where the
law says the same epoch; seeds and the number of audited images move the onset as well."""

OTHER_FACTOR = 2.0
"""And so many times more where network, learning rate, data or audits are others. A judgement too: two data sets with networks
and learning rates alike began by .75 (digits) and by .88 to 1.6 (CIFAR-10) steps a member."""

COPIES = 300
"""Steps a member until generated images are copies, at batches of up to 512 (Bonnaire et al. 2025, 2505.17638)."""


@dataclass(frozen=True)
class Pilot:
    """A training whose audits know when memorization set in.

    Attributes:
        name: What it is called in sentences.
        num_members, batch_size: Of its training.
        after: Epoch of the last audit before the onset, or, without one, of the last that surely saw none.
        by: Epoch of the onset; None: not found so far.
        differs: Keys of its config, beside members and batch size, that are others than those of the run to be foretold.
    """

    name: str
    num_members: int
    batch_size: int
    after: int
    by: int | None
    differs: tuple[str, ...] = ()

    @property
    def images_per_step(self) -> int:
        """Of a full batch."""
        return min(self.batch_size, self.num_members)

    @property
    def factor(self) -> float:
        """How far its bounds are widened."""
        return FACTOR * (OTHER_FACTOR if self.differs else 1.0)

    def step(self, epoch: float) -> float:
        """Finished steps at an epoch's end."""
        return epoch * math.ceil(self.num_members / self.batch_size)

    def __str__(self) -> str:
        found = "none found" if self.by is None else f"found by step {self.step(self.by):,.0f} (epoch {self.by})"
        return (
            f"{self.name} ({self.num_members:,} members, batch {self.batch_size}: none by step {self.step(self.after):,.0f} "
            f"(epoch {self.after}), {found})"
        )


def pilot_of(
    history: Mapping[tuple[int, str], float],
    key: str,
    name: str,
    *,
    num_members: int,
    batch_size: int,
    differs: tuple[str, ...] = (),
) -> Pilot | None:
    """What the curves of a training say of its onset; None where no denoiser but the untrained one was audited.

    Args:
        history: (epoch, series) -> value, as metrics.csv has them.
        key: Attack and mask whose onset it is, as in "sima/all".
        name, num_members, batch_size, differs: See `Pilot`.
    """
    area = f"memorization/{key}/"
    lowers = {epoch: value for (epoch, series), value in history.items() if series == f"{area}rise_lower"}
    onsets = [int(value) for (_, series), value in history.items() if series == f"{area}onset_epoch"]
    if not lowers:
        return None
    # Without an onset the newest looks may be certain already and too few in a row: it could still turn out to be there.
    before = [epoch for epoch, lower in lowers.items() if (epoch < onsets[0] if onsets else lower <= 0)]
    return Pilot(name, num_members, batch_size, max(before, default=0), onsets[0] if onsets else None, differs)


def watched_keys(history: Mapping[tuple[int, str], float]) -> list[str]:
    """Attack and mask of everything whose onset was looked for."""
    ends = "memorization/", "/rise_lower"
    names = dict.fromkeys(series for _, series in history if series.startswith(ends[0]) and series.endswith(ends[1]))
    return [name.removeprefix(ends[0]).removesuffix(ends[1]) for name in names]


@dataclass(frozen=True)
class Forecast:
    """Epochs, and the steps that they are in the training that they are foretold of.

    Attributes:
        expected: Epoch of the onset; None where no pilot had one.
        lower, upper: It is to be expected between them; None: how late it may come is open.
        steps_per_epoch: Of that training.
    """

    expected: float | None
    lower: float
    upper: float | None
    steps_per_epoch: int

    def step(self, epoch: float) -> str:
        """In two digits: a forecast has no more."""
        return _two_digits(epoch * self.steps_per_epoch)

    def __str__(self) -> str:
        if self.expected is None:
            return f"not before about step {self.step(self.lower)} (epoch {_two_digits(self.lower)})"
        about = f"about step {self.step(self.expected)} (epoch {_two_digits(self.expected)})"
        if self.upper is None:
            return f"{about}, not before {self.step(self.lower)}; how late it may come is open"
        return f"{about}, between {self.step(self.lower)} and {self.step(self.upper)}"

    def sentence(self, key: str, num_epochs: int) -> str:
        """Whether a training of so many epochs reaches it."""
        name, length = f"Memorization (onset of {key})", f"{num_epochs * self.steps_per_epoch:,} steps"
        if num_epochs <= self.lower:
            return f"{name} is not to be expected within this training's {length}: {self}."
        if self.expected is None:
            return f"{name} is to be expected {self}: this training has {length}, and no pilot says when it comes."
        if num_epochs < self.expected:
            return f"{name} is to be expected {self}: this training has {length} and probably ends before it."
        may_end = " and may end before it" if self.upper is None or num_epochs < self.upper else ""
        return f"{name} is to be expected {self}: this training has {length}{may_end}."

    def outcome(self, run: Pilot) -> str:
        """What the audits of the training itself found, beside the forecast."""
        after, by = (f"step {run.step(epoch):,.0f} (epoch {epoch})" for epoch in (run.after, run.by or 0))
        if run.by is None:
            is_later = self.upper is not None and run.after >= self.upper
            return f"none by {after}, " + ("later than forecast" if is_later else "so it is still open")
        where = "inside the bounds"
        if run.by < self.lower:
            where = "earlier than forecast"
        elif self.upper is not None and run.after >= self.upper:
            where = "later than forecast"
        return f"none by {after}, found by {by}: {where}"


def forecast(pilots: Sequence[Pilot], *, num_members: int, batch_size: int) -> Forecast:
    """When a training of so many members is to be expected to memorize.

    The law: steps in proportion to the number of members (Bonnaire et al. 2025, 2505.17638, at a batch size held fixed), which
    at equal batch size is the same number of epochs. At another batch size the steps a member stay (expected); the bounds hold
    the same number of epochs as well, which is the other reading.

    Bounds: the audits between which the pilots' onsets lie, the earliest and the latest of them, each widened by
    `Pilot.factor`. How late it may come is open where a pilot without an onset went on beyond the onsets of the others.

    Args:
        pilots: One or more; without an onset they bound from below.
        num_members, batch_size: Of the training that is foretold.
    """
    images = min(batch_size, num_members)
    ratios = [images / each.images_per_step for each in pilots]
    lowers = [each.after * min(1.0, ratio) / each.factor for each, ratio in zip(pilots, ratios)]
    found = [
        (each.by * ratio, each.by * max(1.0, ratio) * each.factor, lower)
        for each, ratio, lower in zip(pilots, ratios, lowers)
        if each.by is not None
    ]
    steps_per_epoch = math.ceil(num_members / batch_size)
    if not found:
        return Forecast(None, max(lowers), None, steps_per_epoch)
    onsets, uppers, earliest = zip(*found)
    is_open = any(each.by is None and each.after * ratio >= max(onsets) for each, ratio in zip(pilots, ratios))
    return Forecast(median(onsets), min(earliest), None if is_open else max(uppers), steps_per_epoch)


def basis(pilots: Sequence[Pilot]) -> str:
    """What a forecast rests on, and how its bounds were made."""
    differs = [f"{each.name} differs in {', '.join(each.differs)} ({each.factor:g} times)" for each in pilots if each.differs]
    others = f"; {'; '.join(differs)}" if differs else ""
    return (
        f"It rests on {'; '.join(map(str, pilots))}. Steps grow with the number of members; audits of fewer images find an "
        f"onset later; the bounds are widened {FACTOR:g} times each way, which is a judgement{others}."
    )


def own_constant(run: Pilot, key: str) -> str:
    """What a training's own audits say of trainings on other numbers of members."""
    more = 10 * run.num_members
    per_member = [f"{run.step(epoch) / run.num_members:.2g}" for epoch in (run.after, run.by or 0)]
    took = f"more than {per_member[0]}" if run.by is None else f"{' to '.join(per_member)}"
    ahead = forecast([run], num_members=more, batch_size=run.batch_size)
    return (
        f"At this batch size and learning rate the onset of {key} took {took} steps a member; on {more:,} members it is to be "
        f"expected {ahead}."
    )


def without_pilot(num_members: int, num_heldout: int) -> tuple[str, ...]:
    """What can be said beforehand without any: how to make one, and the one published number."""
    fewer = max(200, num_members // 10)
    copies = _two_digits(COPIES * num_members)
    says = (
        "When memorization is to be expected is not known without a pilot: steps grow with the number of members, but how many "
        "a member takes depends on network, learning rate, data and attack."
    )
    make = "This training is small enough to be its own pilot: its audits will say."
    if fewer <= num_members // 2:
        make = (
            f"To make one, add name=pilot data.num_members={fewer} data.num_heldout={min(fewer, num_heldout)} to the command "
            f"(about {fewer / num_members:.0%} of the training time at the same number of epochs), then "
            "audit.forecast=[runs/pilot]."
        )
    mark = (
        f"The published mark is far later: generated images are copies after about {COPIES} steps a member (Bonnaire et "
        f"al. 2025, 2505.17638), here step {copies}; attacks tell members long before."
    )
    return says, make, mark


def _two_digits(number: float) -> str:
    return f"{float(f'{number:.2g}'):,.0f}"
