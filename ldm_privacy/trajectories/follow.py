"""Guided trajectories of a batch of captions, with everything that is measured along them."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ldm_privacy.sampling import guided_steps
from ldm_privacy.trajectories.branch_gap import branch_gap
from ldm_privacy.trajectories.decompose import Coefficients, Decomposition
from ldm_privacy.trajectories.overestimation import overestimation
from ldm_privacy.types import Condition, Latent, NoisePredictor

_ROWS = ("gain", "error", "gap", "gap_mean", "final", "early")


@dataclass(frozen=True, eq=False)
class Followed:
    """One trajectory a row, on the CPU; numbers float64.

    Attributes:
        abar: (steps + 1,), of the start and of every state.
        coefficients: On the own latent.
        wrong: On another one.
        gain, error: (batch,), of `overestimation`, means over the early steps.
        gap, gap_mean: (batch,), `branch_gap` at the first step and over all.
        final: Like the start, the generated latents.
        early: (early steps, batch, ...), the guided clean predictions of the first steps.
    """

    abar: Tensor
    coefficients: Coefficients
    wrong: Coefficients
    gain: Tensor
    error: Tensor
    gap: Tensor
    gap_mean: Tensor
    final: Latent
    early: Latent

    @classmethod
    def joined(cls, parts: "Sequence[Followed]") -> "Followed":
        """Batches of the same steps, one after the other."""
        values = {each.name: [getattr(part, each.name) for part in parts] for each in fields(cls)}
        joined: dict[str, Any] = {
            name: torch.cat(it, 1 if name == "early" else 0) for name, it in values.items() if name in _ROWS
        }
        own, wrong = (Coefficients.joined(values[name]) for name in ("coefficients", "wrong"))
        return cls(abar=parts[0].abar, coefficients=own, wrong=wrong, **joined)


@torch.no_grad()
def follow(
    predictor: NoisePredictor,
    start: Latent,
    condition: Condition,
    null: Condition,
    guidance_scale: float,
    *,
    num_steps: int,
    num_early: int,
    wrong: Latent,
    clean: Latent | None = None,
    mean: Latent,
    has_mean_column: bool = False,
) -> Followed:
    """Measure guided trajectories while they run; no state is kept.

    Args:
        predictor, start, condition, null, guidance_scale, num_steps: See `guided_steps`.
        num_early: Of the first steps, whose clean predictions are measured and kept.
        wrong: (batch, ...), other latents, to be decomposed into as well.
        clean: (batch, ...), the latents of the captions' own images; None: the latents that the trajectories end in, for which
            they run twice.
        mean: (...), of the latents; what `overestimation` is about.
        has_mean_column: Whether the mean is a third column of the decompositions.

    Cost: `num_steps` denoiser passes of both branches a trajectory, twice as many where `clean` is None.
    """
    steps = partial(guided_steps, predictor, start, num_steps, condition, null, guidance_scale)
    if clean is None:
        for step in steps():
            clean = step.state
        assert clean is not None
    column = mean.to(start.device) if has_mean_column else None
    own, other = (Decomposition(each, start, mean=column) for each in (clean, wrong))
    early: list[Tensor] = []
    gaps: list[Tensor] = []
    abar: list[Tensor] = []
    for step in steps():
        own.add(step.state)
        other.add(step.state)
        gaps.append(branch_gap(step.conditional, step.unconditional))
        abar += [step.abar_to] if abar else [step.abar_from, step.abar_to]
        if len(early) < num_early:
            early.append(step.clean)
    found = [overestimation(each, clean, mean=mean) for each in early]
    gap = torch.stack(gaps).cpu()
    return Followed(
        torch.stack(abar).cpu(),
        own.coefficients(),
        other.coefficients(),
        torch.stack([each.gain for each in found]).mean(0).cpu(),
        torch.stack([each.error for each in found]).mean(0).cpu(),
        gap[0],
        gap.mean(0),
        step.state.cpu(),
        torch.stack(early).cpu(),
    )
