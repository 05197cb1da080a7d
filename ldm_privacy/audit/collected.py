"""What the passes of an audit leave behind: masked sums by sample, which shards can be joined."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ldm_privacy.audit.samples import AuditedSamples

Sums = dict[str, list[Tensor]]
"""Per attack, of each of its terms the masked sums, (masks, timesteps, samples)."""


@dataclass(frozen=True)
class Collected:
    """Masked sums of audited samples.

    Attributes:
        sample_index, is_member, is_calibration: (samples,).
        group: (samples,) group numbers, or None.
        complexity, repeats: (samples,), see `AuditedSamples`, or None.
        condition_use: (samples,) float64, see `views.condition_use`, or None.
        sums: Per attack, for each of its terms (masks, timesteps, samples) float64.
        sweeps: The same for the masks of the sweep, float32; no masks where there is no sweep.
    """

    sample_index: Tensor
    is_member: Tensor
    is_calibration: Tensor
    group: Tensor | None
    complexity: Tensor | None
    repeats: Tensor | None
    condition_use: Tensor | None
    sums: Sums
    sweeps: Sums

    @classmethod
    def of(
        cls,
        samples: AuditedSamples,
        sums: Sums,
        sweeps: Sums | None = None,
        *,
        condition_use: Tensor | None = None,
    ) -> "Collected":
        """Sums of those samples, with what else is known of them, on the CPU."""

        def known(column: Tensor | None) -> Tensor | None:
            return None if column is None else column.cpu()

        return cls(
            samples.sample_index.cpu(),
            samples.is_member.cpu(),
            samples.is_calibration.cpu(),
            known(samples.group),
            known(samples.complexity),
            known(samples.repeats),
            known(condition_use),
            sums,
            sweeps or {},
        )


def join(shards: list[Collected]) -> Collected:
    """One record in ascending order of sample index; a sample that came more than once is kept once.

    A single shard, which is in order already, is itself the record. The list is emptied: what was joined makes room.

    Raises:
        ValueError: There are no shards.
    """
    parts = [part for part in shards if len(part.sample_index)] or shards[:1]
    shards.clear()
    if not parts:
        raise ValueError("no samples were audited")
    if len(parts) == 1:
        return parts[0]
    together = torch.cat([part.sample_index for part in parts])
    order = torch.from_numpy(np.unique(together.numpy(), return_index=True)[1])

    def column(values: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(values), dim=-1)[..., order]

    def by_attack(entries: Sequence[Sums]) -> Sums:
        return {name: [column(terms) for terms in zip(*(entry[name] for entry in entries))] for name in entries[0]}

    def optional(values: Sequence[Tensor | None]) -> Tensor | None:
        known = [value for value in values if value is not None]
        return column(known) if known else None

    return Collected(
        together[order],
        column([part.is_member for part in parts]),
        column([part.is_calibration for part in parts]),
        optional([part.group for part in parts]),
        optional([part.complexity for part in parts]),
        optional([part.repeats for part in parts]),
        optional([part.condition_use for part in parts]),
        by_attack([part.sums for part in parts]),
        by_attack([part.sweeps for part in parts]),
    )
