"""What the passes of an audit leave behind: masked sums by sample, which shards can be joined."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Collected:
    """Masked sums of audited samples.

    Attributes:
        sample_index, is_member, is_calibration: (samples,).
        group: (samples,) group numbers, or None.
        sums: Per attack, for each of its terms (masks, timesteps, samples) float64.
        sweeps: The same for the masks of the sweep, float32; no masks where there is no sweep.
    """

    sample_index: Tensor
    is_member: Tensor
    is_calibration: Tensor
    group: Tensor | None
    sums: dict[str, list[Tensor]]
    sweeps: dict[str, list[Tensor]]


def join(parts: Sequence[Collected]) -> Collected:
    """One record in ascending order of sample index; a sample that came more than once is kept once.

    Raises:
        ValueError: There are no parts.
    """
    if not parts:
        raise ValueError("no samples were audited")
    together = torch.cat([part.sample_index for part in parts])
    order = together.argsort(stable=True)
    ordered = together[order]
    is_first = torch.ones_like(ordered, dtype=torch.bool)
    is_first[1:] = ordered[1:] != ordered[:-1]
    order = order[is_first]

    def one(entries: Sequence[dict[str, list[Tensor]]]) -> dict[str, list[Tensor]]:
        return {
            name: [torch.cat(terms, dim=-1)[..., order] for terms in zip(*(entry[name] for entry in entries))]
            for name in entries[0]
        }

    def column(values: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(values))[order]

    groups = [part.group for part in parts if part.group is not None]
    return Collected(
        together[order],
        column([part.is_member for part in parts]),
        column([part.is_calibration for part in parts]),
        column(groups) if groups else None,
        one([part.sums for part in parts]),
        one([part.sweeps for part in parts]),
    )
