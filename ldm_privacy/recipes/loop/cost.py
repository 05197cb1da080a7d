"""What a look costs: passes by network, seconds, and its share of the training."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter

import torch
from torch import Tensor

from ldm_privacy.audit.audit import Audit
from ldm_privacy.diffusion import flow_alphas_cumprod
from ldm_privacy.models.predictor import rows_per_pass
from ldm_privacy.targets.target import Target
from ldm_privacy.types import Condition, Latent, Timestep, rows_of
from ldm_privacy.watch.watcher import Watcher


@dataclass(frozen=True)
class LookCost:
    """What a look costs.

    Attributes:
        passes: Network passes of a look, one sample each, by network ("denoiser", "decoder").
        reference_passes: Of the reference, at the first look alone: it doesn't move.
        check_passes: Of the self-check, at the first look alone.
        seconds: Of a look, measured: passes in the sizes that it makes, and the numbers of one audit.
        first_seconds: Of the first look.
        every_n_steps: Steps from look to look.
        step_seconds: Of a training step, where it is known.
    """

    passes: Mapping[str, int]
    reference_passes: int
    check_passes: int
    seconds: float
    first_seconds: float
    every_n_steps: int
    step_seconds: float | None = None

    @property
    def share(self) -> float | None:
        """Of the time that a training with looks takes; None where that of a step isn't known."""
        if self.step_seconds is None:
            return None
        return self.seconds / (self.seconds + self.every_n_steps * self.step_seconds)

    def __str__(self) -> str:
        passes = ", ".join(f"{count:,} {network} passes" for network, count in self.passes.items())
        first = ""
        once = {"the reference": self.reference_passes, "the self-check": self.check_passes}
        if more := " and ".join(f"{count:,} passes of {name}" for name, count in once.items() if count):
            first = f"; the first one {self.first_seconds:.2g} s, with {more}"
        share = "" if self.share is None else f", {self.share:.1%} of the training with a look every {self.every_n_steps} steps"
        return f"A look: {passes}, {self.seconds:.2g} s{share}{first}."


class LookClock:
    """A context of each look, which measures what looks cost.

    Attributes:
        series: `watch/seconds` of the newest look; from the second on `watch/share`, what part of the time since the first one
            looks took.
    """

    def __init__(self) -> None:
        self.series: dict[str, float] = {}
        self._first_end: float | None = None
        self._seconds = 0.0

    def __enter__(self) -> None:
        self._start = perf_counter()

    def __exit__(self, *error: object) -> None:
        now = perf_counter()
        self.series = {"watch/seconds": now - self._start}
        if self._first_end is None:
            self._first_end = now
        else:
            self._seconds += now - self._start
            self.series["watch/share"] = self._seconds / (now - self._first_end)


def measured_cost(
    watchers: Mapping[str, Watcher],
    audit: Audit,
    target: Target,
    device: torch.device | None,
    every_n_steps: int,
    step_seconds: float | None = None,
    check_passes: int = 0,
) -> LookCost:
    """What a look of those watchers costs, measured with a few passes of each network and one audit without any.

    Args:
        watchers: By label.
        audit: Of one of them; its samples are brought to the device.
        target: What is looked at.
        device: Where its network lies.
        every_n_steps, step_seconds, check_passes: See `LookCost`.
    """
    audit.samples = audit.samples.here(device)
    passes: dict[str, int] = {}
    for watcher in watchers.values():
        for name, count in watcher.passes().items():
            passes[name] = passes.get(name, 0) + count
    of_pass = {"denoiser": _denoiser_seconds(target, audit)}
    if "decoder" in passes:
        of_pass["decoder"] = _seconds(lambda: target.codec.decode(audit.samples.latent[:8])) / len(audit.samples.latent[:8])
    start = perf_counter()
    audit(Free())
    seconds = perf_counter() - start + sum(count * of_pass[name] for name, count in passes.items())
    of_reference = audit.num_reference_passes if target.reference is not None else 0
    first = seconds + (of_reference + check_passes) * of_pass["denoiser"]
    return LookCost(passes, of_reference, check_passes, seconds, first, every_n_steps, step_seconds)


class Free:
    """A noise predictor that costs nothing: what is left of an audit is its own arithmetic."""

    alphas_cumprod = flow_alphas_cumprod()

    def __call__(self, noisy_latent: Latent, timestep: Timestep, condition: Condition) -> Latent:
        """The latent itself."""
        return noisy_latent


def _denoiser_seconds(target: Target, audit: Audit) -> float:
    """Of a pass, one sample, in the batches that an audit makes."""
    samples = audit.samples
    rows = torch.arange(rows_per_pass(target.predictor, samples.latent), device=samples.latent.device) % len(samples)
    latent, timestep, condition = samples.latent[rows], torch.zeros_like(rows), rows_of(samples.condition, rows)
    return _seconds(lambda: target.predictor(latent, timestep, condition)) / len(rows)


@torch.no_grad()
def _seconds(call: Callable[[], Tensor]) -> float:
    """Of a call, after a first one, in which things are set up."""
    call().sum().item()
    start = perf_counter()
    for _ in range(3):
        call().sum().item()  # waits for the device
    return (perf_counter() - start) / 3
