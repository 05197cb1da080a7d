"""What belongs to a sample: rows matched by sample index, and what the decoder does at its latent."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ldm_privacy.errors import UserError
from ldm_privacy.types import AuditBatch, Decoder, KeepMask


class MaskRule(Protocol):
    """(ranking, sample_index) -> keep mask; `ranking` (batch, channels, height, width) is what the rule ranks dimensions by.

    Two attributes are optional. `ranks_by`: "influence" (the default) or "deviation", the standard deviation of each
    dimension over the samples. `is_control`: True for a rule that a mask of largest influence must beat (default False).
    """

    keep_fraction: float

    def __call__(self, ranking: Tensor, sample_index: Tensor) -> KeepMask: ...


class SampleTable:
    """Rows matched by sample index.

    Args:
        sample_index: (samples,) unique.
        value: (samples, ...).
    """

    def __init__(self, sample_index: Tensor, value: Tensor):
        order = sample_index.argsort()
        self.sample_index = sample_index[order]
        self.value = value[order]

    def __getitem__(self, sample_index: Tensor) -> Tensor:
        """Rows of those samples, on the device of `sample_index`. Raises UserError for a sample that is not there."""
        wanted = sample_index.to(self.sample_index.device)
        place = torch.searchsorted(self.sample_index, wanted).clamp_max(len(self.sample_index) - 1)
        missing = self.sample_index[place] != wanted
        if missing.any():
            sample = int(wanted[missing][0])
            raise UserError(f"sample {sample} is not in the table: compute its influence (or distortion) first.")
        return self.value[place].to(sample_index.device)


@dataclass(frozen=True)
class SampleGeometry:
    """What masks rank latent dimensions by, and how the decoder stretches each audited latent.

    Attributes:
        influence: (channels, height, width) for every audited sample.
        deviation: (channels, height, width), standard deviation of each latent dimension over the audited samples.
        mask_stability: Mean overlap of the masks of two halves of the probes; None where the estimator has no probes.
        distortion: Local distortion, for some or all of the audited samples; None where it isn't computed.
    """

    influence: SampleTable
    deviation: Tensor
    mask_stability: float | None = None
    distortion: SampleTable | None = None

    def ranking(self, ranks_by: str, sample_index: Tensor) -> Tensor:
        """(batch, channels, height, width): the influence of those samples, or the deviation, the same for each."""
        if ranks_by == "influence":
            return self.influence[sample_index]
        if ranks_by == "deviation":
            return self.deviation.to(sample_index.device).expand(len(sample_index), *self.deviation.shape)
        raise ValueError(f"a mask rule ranks by 'influence' or 'deviation', not '{ranks_by}'")

    def keep(self, rule: MaskRule, sample_index: Tensor) -> KeepMask:
        """The keep mask of that rule, (batch, channels, height, width)."""
        return rule(self.ranking(getattr(rule, "ranks_by", "influence"), sample_index), sample_index)


@dataclass(frozen=True)
class AuditedSamples:
    """The audited samples with what was computed of them before any attack.

    Attributes:
        batch: Latents, labels, sample indices.
        geometry: Influence, deviation, distortion.
        decoder: Latent -> image.
    """

    batch: AuditBatch
    geometry: SampleGeometry
    decoder: Decoder


def check_halves(is_calibration: Tensor, is_member: Tensor) -> None:
    """Raise UserError where a half of the audit has fewer than two members or two held-out samples."""
    for half, name in ((is_calibration, "calibration"), (~is_calibration, "reporting")):
        for side, what in ((is_member, "members"), (~is_member, "held-out samples")):
            if int((half & side).sum()) < 2:
                raise UserError(
                    f"the {name} half of the audit has fewer than two {what}: audit more samples "
                    "(data.num_members, data.num_heldout, audit.max_samples)."
                )
