"""When a training is to be expected to memorize, from the audits of others, and what came of it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, median
from typing import NamedTuple

SeriesHistory = Mapping[tuple[int, str], float]
"""(epoch, series) -> value, as metrics.csv holds the denoiser's stage; of a training that counts steps, (step, series)."""

FACTOR = 2.0
"""Bounds reach so many times further than the pilots' audits say, each way, for other seeds and a law that holds roughly. A
judgement, not a measurement: of two runs of one config, one on 400 members was found memorizing by epoch 50 and one on 2,000 by
epoch 100 (docs/results/cifar10.md), where the law says the same epoch."""

OTHER_FACTOR = 2.0
"""And so many times more where network, learning rate, data or audits are others. A judgement too: two data sets with networks
and learning rates alike were found by .19 (digits) and .88 to 1.6 (CIFAR-10) steps a member."""


ERRORS = NormalDist().inv_cdf(0.95)
"""Standard errors that a rise is moved by, up and down, for the bounds."""


@dataclass(frozen=True)
class Size:
    """What a training's steps and the sharpness of its audits depend on.

    Attributes:
        num_members, batch_size: Of the training.
        audited: Audited members and held-out samples.
    """

    num_members: int
    batch_size: int
    audited: tuple[int, int]

    @property
    def steps_per_epoch(self) -> int:
        """Of the training."""
        return math.ceil(self.num_members / self.batch_size)

    @property
    def images_per_step(self) -> int:
        """Of a full batch."""
        return min(self.batch_size, self.num_members)

    @property
    def spread(self) -> float:
        """What the width of an AUROC's interval is proportional to."""
        return math.sqrt(sum(1 / count for count in self.audited))


class PilotLook(NamedTuple):
    """A rise, how far below it the lower bound lies that decides on an onset, and its standard error."""

    rise: float
    width: float
    error: float


@dataclass(frozen=True)
class Pilot:
    """A training whose audits know when memorization set in.

    Attributes:
        name: What it is called in sentences.
        size: Its own.
        looks: Epoch -> the audit's rise.
        differs: Keys of its config, beside members and batch size, that are others than those of the run to be foretold.
        num_consecutive: Looks in a row that make an onset.
    """

    name: str
    size: Size
    looks: Mapping[int, PilotLook]
    differs: tuple[str, ...] = ()
    num_consecutive: int = 2

    @property
    def factor(self) -> float:
        """How far its bounds are widened."""
        return FACTOR * (OTHER_FACTOR if self.differs else 1.0)

    @property
    def last(self) -> int:
        """Epoch of its last audit."""
        return max(self.looks)

    def onset(self, widths: float = 1.0, errors: float = 0.0) -> tuple[int, int | None]:
        """Epochs between which the rise comes to stay above so many widths and standard errors; by default its own onset.

        The second is None where that was not seen. Without it the newest looks may be high enough already and too few in a row.
        """
        before, row = 0, list[int]()
        for epoch, (rise, width, error) in sorted(self.looks.items()):
            row = [*row, epoch] if rise > widths * width + errors * error else []
            if len(row) == self.num_consecutive:
                return before, row[0]
            before = before if row else epoch
        return before, None

    def step(self, epoch: int) -> str:
        """Finished steps at an epoch's end, in words."""
        return f"step {epoch * self.size.steps_per_epoch:,} (epoch {epoch})"

    def __str__(self) -> str:
        _, by = self.onset()
        found = f"none found up to {self.step(self.last)}" if by is None else f"found by {self.step(by)}"
        sizes = f"{self.size.num_members:,} members, batch {self.size.batch_size}, {sum(self.size.audited):,} images audited"
        return f"{self.name} ({sizes}, {found})"


def pilot_of(
    history: SeriesHistory,
    key: str,
    name: str,
    size: Size,
    *,
    differs: tuple[str, ...] = (),
    num_consecutive: int = 2,
    confidence: float = 0.95,
) -> Pilot | None:
    """What the curves of a training say of its onset; None where no denoiser but the untrained one was audited.

    Args:
        history: (epoch, series) -> value, as metrics.csv has them.
        key: Attack and mask whose onset it is, as in "sima/all".
        name, size, differs, num_consecutive: See `Pilot`.
        confidence: Of the lower bounds of all looks together, see `OnsetDetector`.
    """
    from ldm_privacy.watch.onset import OnsetDetector

    ends, detector = (f"memorization/{key}/rise", f"memorization/{key}/rise_lower"), OnsetDetector(confidence=confidence)
    rises, lowers = ({epoch: value for (epoch, series), value in history.items() if series == each} for each in ends)
    looks = {}
    for number, epoch in enumerate(sorted(epoch for epoch in rises if epoch in lowers), start=1):
        width = rises[epoch] - lowers[epoch]
        looks[epoch] = PilotLook(rises[epoch], width, width / NormalDist().inv_cdf(detector.confidence_at(number)))
    return Pilot(name, size, looks, differs, num_consecutive) if looks else None


def watched_keys(history: SeriesHistory) -> list[str]:
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
        """In words."""
        return two_digits(epoch * self.steps_per_epoch)

    def __str__(self) -> str:
        if self.expected is None:
            return f"not before about step {self.step(self.lower)} (epoch {two_digits(self.lower)})"
        about = f"about step {self.step(self.expected)} (epoch {two_digits(self.expected)})"
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
        after, by = run.onset()
        is_later = self.upper is not None and after >= self.upper
        if by is None:
            return f"none by {run.step(after)}, " + ("later than forecast" if is_later else "so it is still open")
        where = "later than forecast" if is_later else "earlier than forecast" if by < self.lower else "inside the bounds"
        return f"none by {run.step(after)}, found by {run.step(by)}: {where}"


def forecast(pilots: Sequence[Pilot], size: Size) -> Forecast:
    """When the audits of a training are to be expected to find that it memorizes.

    The law: steps in proportion to the number of members (Bonnaire et al. 2025, 2505.17638, at a batch size held fixed), which
    at equal batch size is the same number of epochs. At another batch size the steps a member stay (expected); the bounds hold
    the same number of epochs as well, which is the other reading.

    An onset is found, not seen: audits of more images find a smaller rise. With s the width of this training's interval over
    that of the pilot, w, it is expected where the pilot's rise comes to stay above s w, and bounded by where that rise does
    when it is moved up and down by the errors of both audits together, `ERRORS` e sqrt(1 + s^2). Each bound is then widened by
    `Pilot.factor`. Of several pilots the median is expected, and the earliest and the latest bound hold; how late it may come
    is open where the pilot that went on longest doesn't say.

    Args:
        pilots: One or more.
        size: Of the training that is foretold.
    """
    expected, lower, upper, unseen = list[float](), list[float](), list[float](), list[float]()
    for pilot in pilots:
        ratio, width = size.images_per_step / pilot.size.images_per_step, size.spread / pilot.size.spread
        errors = ERRORS * math.sqrt(1 + width**2)
        (earliest, _), (_, by), (_, latest) = (pilot.onset(width, each) for each in (-errors, 0.0, errors))
        lower.append(earliest * min(1.0, ratio) / pilot.factor)
        if by is not None:
            expected.append(by * ratio)
        if latest is None:
            unseen.append(pilot.last * max(1.0, ratio) * pilot.factor)
        else:
            upper.append(latest * max(1.0, ratio) * pilot.factor)
    is_open = not upper or max(unseen, default=0.0) >= max(upper)
    return Forecast(median(expected) if expected else None, min(lower), None if is_open else max(upper), size.steps_per_epoch)


def two_digits(number: float) -> str:
    """A forecast has no more."""
    return f"{float(f'{number:.2g}'):,.0f}"
