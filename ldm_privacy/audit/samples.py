"""The audited samples: one table by sample index of everything that is known of them before any attack."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from ldm_privacy.errors import UserError
from ldm_privacy.geometry.deviation import latent_deviation
from ldm_privacy.plugins import blamed_on
from ldm_privacy.processes import gather, gather_on_main, is_main, share_of, total, world_size
from ldm_privacy.randomness import uniform
from ldm_privacy.types import Condition, Influence, KeepMask, Latent, check_shape, condition_under, rows_of


class MaskRule(Protocol):
    """(ranking, sample_index) -> keep mask; `ranking` (batch, channels, height, width) is what the rule ranks dimensions by.

    Two attributes are optional. `ranks_by`: "influence" (the default), "deviation", the standard deviation of each dimension
    over the samples, "latent", or "nothing", where only its shape is looked at. `is_control`: True for a rule that a mask of
    largest influence must beat (default False).
    """

    keep_fraction: float

    def __call__(self, ranking: Tensor, sample_index: Tensor) -> KeepMask: ...


@dataclass(frozen=True, eq=False)
class AuditedSamples:
    """Rows matched everywhere by `sample_index`, never by their place in a batch.

    Attributes:
        latent: (samples, channels, height, width), clean, as the denoiser sees it.
        is_member: (samples,) bool.
        sample_index: (samples,) int64, ascending and unique: the row in the data source. 0, 1, ... by default.
        group: (samples,) int64: patients, identities; None where there are none.
        is_calibration: (samples,) bool, one of the halves that choose for each other (where one half alone reports, the other);
            a hash of the sample index (of the group) by default.
        condition: Name -> (samples, ...), what the denoiser gets beside each sample.
        views: Other conditions of the same samples, by name ("null", "shuffled", ...); none where there is no condition.
        repeats: (samples,) int64, how often a sample comes in an epoch of the training; None: members once.
        influence: Like `latent`: diag(J^T J) of the decoder; None where the codec has no decoder to speak of.
        distortion: (samples,) float64, local distortion; NaN where it wasn't measured, None where it never is.
        reconstruction_error: (samples,) mean absolute error of the codec; None where it wasn't measured.
        complexity: (samples,) float64, ln of the image's bytes as PNG (`image_complexity`); None where it wasn't measured.
        deviation: (channels, height, width), standard deviation of each latent dimension over all samples of all processes.
        mask_stability: Mean overlap of the masks of two halves of the probes; None where the estimator has no probes.
        is_share: These are this process's part alone; the other processes hold the rest.

    Raises:
        ValueError: Lengths differ, or sample indices are not ascending and unique.
    """

    latent: Latent
    is_member: Tensor
    sample_index: Tensor = None  # type: ignore[assignment]
    group: Tensor | None = None
    is_calibration: Tensor = None  # type: ignore[assignment]
    condition: Condition = field(default_factory=dict)
    views: Mapping[str, Condition] = field(default_factory=dict)
    repeats: Tensor | None = None
    influence: Influence | None = None
    distortion: Tensor | None = None
    reconstruction_error: Tensor | None = None
    complexity: Tensor | None = None
    deviation: Tensor = None  # type: ignore[assignment]
    mask_stability: float | None = None
    is_share: bool = False

    def __post_init__(self) -> None:
        if self.sample_index is None:
            object.__setattr__(self, "sample_index", torch.arange(len(self.latent), device=self.latent.device))
        if self.is_calibration is None:
            half = is_calibration(self.sample_index, group=self.group).to(self.latent.device)
            object.__setattr__(self, "is_calibration", half)
        if self.deviation is None:
            everywhere = total if self.is_share else lambda value: value
            object.__setattr__(self, "deviation", latent_deviation(self.latent, total=everywhere))
        for each in (self._columns(), self.condition, *self.views.values()):
            for name, value in each.items():
                if len(value) != len(self.latent):
                    raise ValueError(f"{len(value)} rows of {name} for {len(self.latent)} latents")
        # On a GPU the look would wait for it; rows come from the CPU.
        if self.sample_index.device.type == "cpu" and (self.sample_index[1:] <= self.sample_index[:-1]).any():
            raise ValueError("sample_index must be ascending, each sample once")

    def __len__(self) -> int:
        return len(self.latent)

    def rows(self, rows: slice | Tensor) -> "AuditedSamples":
        """Some of the samples, in the same order; what belongs to all of them together stays."""
        # Some columns stay on the CPU where latents are on a GPU; an index on the CPU serves both.
        place = rows.cpu() if isinstance(rows, Tensor) else rows
        return self._each(lambda value: value[place])

    def to(self, device: torch.device | str) -> "AuditedSamples":
        """The same on another device."""
        return self._each(lambda value: value.to(device))

    def with_columns(self, **columns: object) -> "AuditedSamples":
        """The same with some columns set: `samples.with_columns(influence=...)`."""
        return replace(self, **columns)  # type: ignore[arg-type]

    def share(self) -> "AuditedSamples":
        """This process's part of samples that every process has."""
        return replace(self.rows(share_of(len(self))), is_share=world_size() > 1)

    def here(self, device: torch.device | None) -> "AuditedSamples":
        """This process's part, on that device (None: where it is); itself where that changes nothing."""
        mine = self if self.is_share or world_size() == 1 else self.share()
        return mine if device is None or mine.latent.device == device else mine.to(device)

    def gathered(self, *, everywhere: bool = False) -> "AuditedSamples":
        """All samples, on the CPU, in the main process, or everywhere; else what a process has. All processes call it."""
        mine = self.to("cpu")
        if not self.is_share or world_size() == 1:
            return replace(mine, is_share=False)
        collect = gather if everywhere else gather_on_main
        return replace(mine._each(lambda value: torch.cat(collect(value))), is_share=not (everywhere or is_main()))

    def told(self, view: str) -> Condition:
        """The condition of that view, "own" among them. Raises UserError where there is none."""
        return condition_under(view, self.condition, self.views)

    def null_row(self, guidance_scale: float | None) -> Condition:
        """The null condition that samples are guided against, rows of 1; none where there is no guidance.

        Raises:
            UserError: There is guidance, and no condition.
        """
        return {} if guidance_scale is None else rows_of(self.told("null"), slice(1))

    def all_conditions(self) -> dict[str, Tensor]:
        """The conditions of all samples in the main process; in the others their own. All processes call it."""
        if not self.is_share or world_size() == 1:
            return dict(self.condition)
        return {name: torch.cat(gather_on_main(value.cpu())).to(value.device) for name, value in self.condition.items()}

    def keep(self, rule: MaskRule) -> KeepMask:
        """The keep mask of that rule, (samples, channels, height, width). Raises UserError as `ranking`."""
        ranking = self.ranking(getattr(rule, "ranks_by", "influence"))
        with blamed_on(rule):
            return check_shape("mask", rule(ranking, self.sample_index), self.latent.shape, torch.bool)

    def ranking(self, ranks_by: str) -> Tensor:
        """What a rule ranks dimensions by, like `latent`: influence, the latent, or deviation, the same for each sample.

        Raises:
            UserError: Influence, where there is none.
        """
        if ranks_by in ("latent", "nothing"):
            return self.latent
        if ranks_by == "deviation":
            return self.deviation.to(self.latent.device).expand(self.latent.shape)
        if ranks_by != "influence":
            raise ValueError(f"a mask rule ranks by 'influence', 'deviation', 'latent' or 'nothing', not '{ranks_by}'")
        if self.influence is None:
            raise UserError("these samples have no influence: use the masks all, random and deviation.")
        return self.influence

    def check_halves(self) -> None:
        """Raise UserError where a half of the audit has fewer than two members (or groups of them) or two held-out samples."""
        check_halves(self.is_calibration, self.is_member, self.group)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "AuditedSamples":
        """The same with every column changed alike."""
        columns: dict[str, Any] = {name: change(value) for name, value in self._columns().items()}

        def changed(condition: Condition) -> dict[str, Tensor]:
            return {name: change(value) for name, value in condition.items()}

        views = {view: changed(each) for view, each in self.views.items()}
        return replace(self, **columns, condition=changed(self.condition), views=views)

    def _columns(self) -> dict[str, Tensor]:
        """What there is a row of for each sample, but for the condition."""
        values = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "deviation"}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}


def is_calibration(sample_index: Tensor, *, group: Tensor | None = None) -> Tensor:
    """Which half each sample is of: the halves choose (timestep, keep fraction) for each other. Bool, like `sample_index`.

    A fair coin per sample index (or per group, so that a group is never on both halves): independent of membership, of
    the split, of epochs and of machines.
    """
    keys = sample_index if group is None else group
    return uniform("calibration-half", (0, keys), (), device=keys.device) < 0.5


def check_halves(is_calibration: Tensor, is_member: Tensor, group: Tensor | None) -> None:
    """Raise UserError where a half of the audit has fewer than two members or two held-out samples; groups, where there are."""
    unit, of = (torch.arange(len(is_member)), "") if group is None else (group, "groups of ")
    for half in (is_calibration, ~is_calibration):
        for side, what in ((is_member, f"{of}members"), (~is_member, f"{of}held-out samples")):
            if len(unit[(half & side).to(unit.device)].unique()) < 2:
                raise UserError(
                    f"a half of the audit has fewer than two {what}: audit more samples "
                    "(data.num_members, data.num_heldout, audit.max_samples)."
                )
