"""Times variants of one computation in turn in one process, so that whatever else the machine does falls on all alike."""

import statistics
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import torch

Name = TypeVar("Name", bound=Hashable)


class Timing(NamedTuple):
    """The last result of a variant, and its seconds in every round."""

    result: Any
    seconds: list[float]

    @property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(self.seconds)


def clock() -> float:
    """Seconds, when the device is done. With one thread on a CPU they are the processor's: other jobs hardly count."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def turns(names: Sequence[Name], rounds: Iterable[int]) -> Iterator[Name]:
    """Every name once a round, every second round in reverse order."""
    for number in rounds:
        yield from names[:: -1 if number % 2 else 1]


def in_turn(variants: Mapping[Name, Callable[[], Any]], rounds: Iterable[int]) -> dict[Name, Timing]:
    """Run and time every variant once a round."""
    timings = {name: Timing(None, []) for name in variants}
    for name in turns(list(variants), rounds):
        start = clock()
        result = variants[name]()
        timings[name] = Timing(result, [*timings[name].seconds, clock() - start])
    return timings


def speedup(fast: Timing, slow: Timing) -> tuple[float, float, float]:
    """Median over the rounds of slow / fast, the least and the largest."""
    ratios = [long / short for long, short in zip(slow.seconds, fast.seconds, strict=True)]
    return statistics.median(ratios), min(ratios), max(ratios)


def times_faster(fast: Timing, slow: Timing) -> str:
    """The same in words."""
    return "{:.2f} ({:.2f} to {:.2f})".format(*speedup(fast, slow))
