"""From a checked config to built objects, each on first use; training, evaluation and the plan share it."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ldm_privacy.attacks.base import Attack
from ldm_privacy.audit.audit import Audit
from ldm_privacy.audit.measure import Measuring
from ldm_privacy.audit.samples import AuditedSamples, MaskRule
from ldm_privacy.audit.views import under_views
from ldm_privacy.calibrations.base import Calibration
from ldm_privacy.config import Config
from ldm_privacy.data.conditions import ConditionSource, check_condition, shuffled
from ldm_privacy.data.module import ImageData
from ldm_privacy.data.split import Split
from ldm_privacy.device import device_of
from ldm_privacy.errors import UserError
from ldm_privacy.geometry.distortion import Distortion
from ldm_privacy.losses.base import CodecLoss
from ldm_privacy.models.codec import Codec
from ldm_privacy.plugins import blamed_on
from ldm_privacy.randomness import uniform
from ldm_privacy.registry import IMAGE_SOURCES
from ldm_privacy.runs.history import Provenance
from ldm_privacy.types import AuditKey, Condition, Intervals, Progress
from ldm_privacy.watch.onset import OnsetDetector
from ldm_privacy.watch.watcher import Every, Watcher


class Setup:
    """The objects of one run.

    Args:
        config: Checked.
        progress: Shows how far the long preparations are; see `Progress`.
        split: Who is a member; drawn from the config where None (a checkpoint brings its own).
        stored_condition: What a checkpoint says of its condition; None in a new run.
    """

    def __init__(
        self,
        config: Config,
        progress: Progress,
        *,
        split: Split | None = None,
        stored_condition: Mapping[str, Any] | None = None,
    ):
        self.config = config
        self.progress = progress
        self._split = split
        self._stored_condition = stored_condition

    @cached_property
    def device(self) -> torch.device:
        """Where encoding, influence and evaluation run: the trainer's accelerator."""
        return device_of(self.config.trainer.accelerator, tf32=self.config.trainer.tf32)

    @property
    def split_seed(self) -> int:
        """Of the split and of which samples are audited: the same for runs that are to be compared sample by sample."""
        seed = self.config.data.seed
        return self.config.seed if seed is None else seed

    @cached_property
    def data(self) -> ImageData:
        """The images of the split, loaded."""
        config = self.config.data
        with self.progress("Reading images", 0) as done, blamed_on(IMAGE_SOURCES.get(config.source.name)):
            return ImageData(
                config.source.build(),
                resolution=config.resolution,
                channels=config.channels,
                num_members=config.num_members,
                num_heldout=config.num_heldout,
                num_public=config.num_public,
                index_file=config.index_file,
                group_column=config.group_column,
                seed=self.split_seed,
                split=self._split,
                progress=done,
            )

    @cached_property
    def condition(self) -> ConditionSource:
        """What the denoiser is told of each image."""
        data = self.data
        condition = self.config.denoiser.condition.build_a(
            ConditionSource,
            images=data.images,
            labels=data.labels,
            num_classes=data.num_classes,
            class_names=data.class_names,
            captions=data.captions,
            member_index=data.split.member_index,
            stored=self._stored_condition,
        )
        check_condition(condition, self.audited_index[:3])
        return condition

    @cached_property
    def views(self) -> dict[str, Condition]:
        """Other conditions of the audited samples, by name; none for an unconditional denoiser."""
        own = self.condition(self.audited_index)
        if not own:
            return {}
        count, null = len(self.audited_index), self.condition.null()
        places = shuffled(self.audited_index, own, seed=self.split_seed)
        views: dict[str, Condition] = {
            "null": {name: value.expand(count, *value.shape[1:]) for name, value in null.items()},
            "shuffled": {name: value[places] for name, value in own.items()},
        }
        if any({*attack.views} - {*views} for attack in self.attacks.values()):
            views |= self.condition.reduced(self.audited_index)
        return views

    def repeats(self, sample_index: Tensor) -> Tensor | None:
        """How often each of those samples comes in an epoch; None where no member comes more than once.

        Which members are repeated is a hash of the sample index: the same for runs of one split.
        """
        config, members = self.config.data.repeats, self.data.split.member_index
        if not config.share:
            return None
        order = uniform("repeated", (self.split_seed, members), ()).argsort()
        chosen = members[order[: round(config.share * len(members))]]
        return torch.where(torch.isin(sample_index, chosen), config.times, 1)

    @cached_property
    def audited_index(self) -> Tensor:
        """Sample indices of the audit, ascending: at most `audit.max_samples` a side, chosen by a hash of the index."""
        return self._first_by_hash(self.config.audit.max_samples)

    @cached_property
    def distortion_index(self) -> Tensor:
        """Sample indices with a local distortion, ascending: at most `geometry.distortion_max_samples` a side of the audit."""
        chosen = self._first_by_hash(self.config.geometry.distortion_max_samples)
        return chosen[torch.isin(chosen, self.audited_index)]

    @cached_property
    def audited_members(self) -> Tensor:
        """(audited samples,) bool."""
        return torch.isin(self.audited_index, self.data.split.member_index)

    @cached_property
    def codec(self) -> Codec:
        """The configured codec: random weights or pretrained."""
        torch.manual_seed(self.config.seed)
        config = self.config.data
        return self.config.autoencoder.network.build_a(Codec, image_channels=config.channels, resolution=config.resolution)

    def latent_shape(self, codec: Codec) -> torch.Size:
        """(channels, height, width) of the latents."""
        with blamed_on(codec):
            channels, height, width = codec.latent_shape(self.config.data.channels, self.config.data.resolution)
        return torch.Size((channels, height, width))

    @cached_property
    def attacks(self) -> dict[str, Attack]:
        """The configured attacks by label."""
        return {label: attack.build_a(Attack) for label, attack in self.config.audit.attacks.items()}

    @cached_property
    def calibrations(self) -> dict[str, Calibration]:
        """The configured calibrations by label."""
        return {label: each.build_a(Calibration) for label, each in self.config.audit.calibrations.items()}

    @cached_property
    def calibrated(self) -> list[AuditKey]:
        """What the calibrations wrap: the attack and mask of the onset by default."""
        named = self.config.audit.calibrated
        if wrong := next((each for each in named if each.count("/") != 1), None):
            raise UserError(f"audit.calibrated: '{wrong}' is no attack with a mask; write it as {self.onset_key}.")
        return [AuditKey.of(each) for each in named] or [self.onset_key]

    @cached_property
    def masks(self) -> dict[str, MaskRule]:
        """The configured mask rules by label."""
        return {label: rule.build(seed=self.config.seed) for label, rule in self.config.audit.masks.items()}

    @cached_property
    def influence(self) -> Any:
        """The configured estimator."""
        return self.config.geometry.influence.build(seed=self.config.seed)

    @cached_property
    def distortion(self) -> Distortion | None:
        """The configured local distortion; None where it is off."""
        config = self.config.geometry
        numbers = config.distortion_rank, config.distortion_oversample, config.distortion_power_iterations
        return Distortion(*numbers, seed=self.config.seed) if config.distortion_rank else None

    @cached_property
    def onset_key(self) -> AuditKey:
        """Attack and mask of the onset and the verdict."""
        audit, onset = self.config.audit, self.config.audit.onset
        if not audit.attacks or not audit.masks:
            raise UserError("audit.attacks and audit.masks: name at least one of each.")
        attack = onset.attack or next(iter(audit.attacks))
        if attack not in audit.attacks:
            raise UserError(f"audit.onset.attack: '{attack}' is not in audit.attacks ({', '.join(audit.attacks)}).")
        if onset.mask not in audit.masks:
            raise UserError(f"audit.onset.mask: '{onset.mask}' is not in audit.masks ({', '.join(audit.masks)}).")
        return AuditKey(attack, onset.mask)

    @cached_property
    def provenance(self) -> Provenance:
        """What the scores of its audits are of."""
        config, split = self.config, self._split or self.data.split
        of_views = {label: attack for label, (attack, _) in under_views(self.attacks, config.audit.views).items()}
        settings = self.attacks | of_views, self.masks, config.audit.timesteps
        return Provenance.of(split.hash, config.seed, *settings, cross_fit=config.audit.cross_fit)

    @property
    def intervals(self) -> Intervals:
        """How intervals are made."""
        audit = self.config.audit
        return Intervals(audit.confidence, audit.num_bootstrap, self.config.seed)

    def detector(self) -> OnsetDetector:
        """A new one: each quantity has its own."""
        return OnsetDetector(self.config.audit.onset.num_consecutive, self.config.audit.confidence)

    def measuring(self, codec: Codec, store_folder: Path | None) -> Measuring:
        """What it takes to measure images with that codec."""
        content, batch_size = self.data.duplicates.content_hash, self.config.audit.batch_size
        codec = codec.to(self.device)
        return Measuring(codec, self.data.images, content, store_folder, batch_size, self.device, self.progress)

    def samples(self, measuring: Measuring, means: Tensor) -> AuditedSamples:
        """This process's audited samples, measured. `means`: of all audited samples."""
        component = self.config.geometry.influence
        settings = {"estimator": component.name, "arguments": component.arguments, "seed": self.config.seed}
        return measuring.samples(
            self.audited_index,
            means,
            self.audited_members,
            group=self.data.groups(self.audited_index),
            condition=self.condition(self.audited_index),
            views=self.views,
            repeats=self.repeats(self.audited_index),
            influence=self.influence,
            influence_settings=settings,
            distortion=self.distortion,
            distortion_index=self.distortion_index,
        )

    @cached_property
    def losses(self) -> dict[str, CodecLoss]:
        """The losses of stage 1 by label."""
        return {label: loss.build_a(CodecLoss) for label, loss in self.config.autoencoder.losses.items()}

    def blank_samples(self, codec: Codec) -> AuditedSamples:
        """As `samples`, but with nothing encoded or measured: for checks and for the plan."""
        shape = self.latent_shape(codec)
        zeros = torch.zeros(1, *shape).expand(len(self.audited_index), *shape)
        return AuditedSamples(
            zeros,
            self.audited_members,
            self.audited_index,
            group=self.data.groups(self.audited_index),
            condition=self.condition(self.audited_index),
            views=self.views,
            repeats=self.repeats(self.audited_index),
            influence=None if codec.network is None else zeros,
            complexity=torch.zeros(len(self.audited_index), dtype=torch.float64),
            deviation=torch.zeros(shape),
        )

    def audit(self, samples: AuditedSamples) -> Audit:
        """The audit of the configured attacks and masks."""
        config = self.config.audit
        return Audit(
            samples,
            self.attacks,
            self.masks,
            config.timesteps,
            views=config.views,
            keep_fractions=config.keep_fractions,
            calibrations=self.calibrations,
            calibrated=self.calibrated,
            cross_fit=config.cross_fit,
            batch_size=config.batch_size,
            autocast=torch.bfloat16 if config.precision == "bfloat16" else None,
            seed=self.config.seed,
            intervals=self.intervals,
            target_fprs=config.target_fprs,
        )

    def watchers(self, samples: AuditedSamples, progress: Progress) -> dict[str, Watcher]:
        """The configured watchers beside the audits, by label."""
        config, split = self.config, self.data.split
        provided = {
            "samples": samples,
            "images": self.data.images,
            "member_index": split.member_index,
            "heldout_index": split.heldout_index,
            "groups": self.data.groups,
            "every": Every(epochs=config.audit.every_n_epochs),
            "seed": config.seed,
            "intervals": self.intervals,
            "words": self.condition.words,
            "progress": progress,
            "audit_batch_size": config.audit.batch_size,
        }
        return {label: each.build_a(Watcher, **provided, onset=self.detector()) for label, each in config.watch.items()}

    def describe(self) -> str:
        """The data in a few lines: sizes, split hash, what was taken out."""
        split = self.data.split
        sizes = f"{len(split.member_index)} members, {len(split.heldout_index)} held-out, {len(split.public_index)} public"
        lines = f"{sizes}; split {split.hash[:12]}, seed {self.config.seed}, on {self.device}"
        if (found := str(self.data.duplicates)) != "no identical images":
            lines += f"\nIdentical images: {found}; held-out copies of members were taken out."
        return lines

    def _first_by_hash(self, limit: int | None) -> Tensor:
        """At most so many members and held-out samples, chosen by a hash of the sample index; ascending."""
        sides = []
        for side in (self.data.split.member_index, self.data.split.heldout_index):
            order = uniform("audited", (self.split_seed, side), ()).argsort()
            sides.append(side[order[:limit]])
        return torch.cat(sides).sort().values
