"""What a watcher is: a quantity that is looked at while a model trains, at its own cadence."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import torch
from pydantic import Field

from ldm_privacy.audit.samples import AuditedSamples
from ldm_privacy.errors import UserError
from ldm_privacy.plugins import blamed_on
from ldm_privacy.targets.target import Target

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure


GuidanceScale = Annotated[float, Field(ge=0, le=1000)]
"""See `guided_steps`."""


@dataclass(frozen=True)
class Moment:
    """A moment of a training.

    Attributes:
        epoch: Finished epochs; 0 before the first step.
        step: Finished optimizer steps.
        is_epoch_end: At the end of an epoch (or before the first step), not after a step in its midst.
        is_last: The training ends here.
    """

    epoch: int
    step: int
    is_epoch_end: bool = True
    is_last: bool = False


@dataclass(frozen=True)
class Look:
    """What a look found.

    Attributes:
        series: Curves: name -> value.
        lines: For the terminal.
        pictures: By name: figures, or arrays of pixels (height, width, 3) uint8.
        charts: Chart -> series: the few that a person watches, under names that are short and apart in their first letters;
            viewers sort by them. By default every series but bounds, under its own name.
    """

    series: Mapping[str, float] = field(default_factory=dict)
    lines: tuple[str, ...] = ()
    pictures: Mapping[str, "np.ndarray | Figure"] = field(default_factory=dict)
    charts: Mapping[str, str] | None = None

    def shown(self) -> dict[str, str]:
        """Chart -> series, of the series that this look has."""
        own = {name: name for name in self.series if not name.endswith(("_lower", "_upper"))}
        return {chart: name for chart, name in (own if self.charts is None else self.charts).items() if name in self.series}


@dataclass(frozen=True)
class Every:
    """A cadence: before the first step, every so many epochs or steps, and at the end of the training.

    Raises:
        UserError: Neither or both are given, or one is below 1.
    """

    epochs: int | None = None
    steps: int | None = None

    def __post_init__(self) -> None:
        given = [each for each in (self.epochs, self.steps) if each is not None]
        if len(given) != 1:
            raise UserError("every: give either epochs or steps, as in every.epochs=5.")
        if given[0] < 1:
            raise UserError(f"every: {given[0]} {'epochs' if self.steps is None else 'steps'}; use 1 or more.")

    def due(self, moment: Moment, since: int = 0) -> bool:
        """Whether that moment is one of the cadence. `since`: step of the newest look; a count may jump over a multiple."""
        if moment.is_last or moment.step == 0:
            return moment.is_epoch_end
        if self.epochs is not None:
            return moment.is_epoch_end and moment.epoch % self.epochs == 0
        assert self.steps is not None
        return moment.step // self.steps > since // self.steps

    def num_looks(self, epochs: int, steps_per_epoch: int) -> int:
        """Looks in a training of so many epochs, the one before its first step and the one at its end among them."""
        every = self.epochs or self.steps or 1
        return 1 - (-(epochs if self.epochs is not None else epochs * steps_per_epoch) // every)


class Watcher:
    """A quantity that is watched. A subclass writes `look`, and `state_dict` and `load_state_dict` where it remembers anything.

    It is called in every process alike, with the weights that are to be looked at in the target's network, in evaluation mode
    and without gradients; whoever calls it sees to that, and logs what comes back in the main process.

    Args:
        every: When to look; after each epoch by default. In a config `every: {epochs: 5}` or `every: {steps: 1000}`, and the
            audits' cadence by default.

    Attributes:
        sees_untrained: Whether it looks before the first step.
        in_evaluation: Whether it looks at a checkpoint that is evaluated, too.
        keeps: Arguments whose own default stays, where the program would give another ("every": the audits' cadence).
        result: What the newest look found, for sections of the report, in the main process; in no checkpoint. It may have
            `figures() -> Mapping[str, Figure]`, for the page and the folder of an evaluation, `numbers() -> Mapping`, for
            metrics.json, `facts() -> Mapping[str, str]`, for the protocol, and `write(folder)`, for files of its own.
        last: The newest moment that was looked at; None before any.
        samples: Whom it looks at, where it has any; in a look this process's share, on the network's device.
    """

    sees_untrained: ClassVar[bool] = True
    in_evaluation: bool = False
    keeps: ClassVar[tuple[str, ...]] = ()
    result: object = None
    last: Moment | None = None
    samples: AuditedSamples | None

    def __init__(self, every: Every | None = None):
        self.every = every or Every(epochs=1)

    @property
    def unit(self) -> str:
        """What its cadence, its onset and its sentences count: "epoch" or "step"."""
        return "epoch" if self.every.epochs is not None else "step"

    def time(self, moment: Moment) -> int:
        """The moment in that unit."""
        return moment.epoch if self.every.epochs is not None else moment.step

    def due(self, moment: Moment) -> bool:
        """Whether to look at that moment. The same step is never looked at twice."""
        if moment.step == 0 and not self.sees_untrained:
            return False
        return (self.last is None or self.last.step != moment.step) and self.every.due(
            moment, 0 if self.last is None else self.last.step
        )

    def num_looks(self, epochs: int, steps_per_epoch: int) -> int:
        """Looks in a whole training of so many epochs."""
        return self.every.num_looks(epochs, steps_per_epoch) - (not self.sees_untrained)

    def look(self, target: Target, moment: Moment) -> Look:
        """Look at the target. Collective: every process calls it."""
        raise NotImplementedError

    def passes(self) -> dict[str, int]:
        """Network passes of one look at this process's samples, by network ("denoiser", "decoder"), one sample each."""
        return {}

    def first_passes(self) -> dict[str, int]:
        """Further ones of its first look, by network."""
        return {}

    def sentences(self) -> list[str]:
        """What it has to say at the end of the training."""
        return []

    def summary(self) -> dict[str, Any]:
        """For the summary of the run."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """What it remembers, in plain values and tensors."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""

    def full_state(self) -> dict[str, Any]:
        """`state_dict` with the newest moment."""
        last = None if self.last is None else asdict(self.last)
        return {"kind": [type(self).__name__, self.unit], "last": last, **self.state_dict()}

    def load_full_state(self, state: Mapping[str, Any]) -> None:
        """The inverse of `full_state`; the state of another kind of watcher, or in another unit, is left alone."""
        if state["kind"] != [type(self).__name__, self.unit]:
            return
        self.last = None if state["last"] is None else Moment(**state["last"])
        self.load_state_dict(state)


def results_of(watchers: Mapping[str, Watcher], step: int) -> dict[str, object]:
    """What those that look in an evaluation found after that step, by label; nothing of those whose newest look is older."""
    asked = {label: each for label, each in watchers.items() if each.in_evaluation and each.result is not None}
    return {label: each.result for label, each in asked.items() if each.last is not None and each.last.step == step}


def look_with(
    watchers: Mapping[str, Watcher], target: Target, moment: Moment, device: torch.device | None = None
) -> dict[str, Look]:
    """One after the other, those that are due; their samples are brought to `device`, where it is given.

    Raises:
        UserError: The target can't take the samples; it is asked for that only where a look fails.
    """
    looks = {}
    for label, watcher in watchers.items():
        if watcher.due(moment):
            if (samples := getattr(watcher, "samples", None)) is not None:
                watcher.samples = samples = samples.here(device)
            try:
                with blamed_on(watcher):
                    looks[label] = look = watcher.look(target, moment)
                    if not isinstance(look, Look):
                        raise TypeError(f"look: it returns {type(look).__name__}, not a Look")
            except UserError:
                raise
            except Exception:
                if samples is not None and len(samples):
                    target.check(samples.latent, samples.condition)
                raise
            watcher.last = moment
    return looks
