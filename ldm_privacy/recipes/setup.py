"""From a checked config to what audits, each on first use; training, evaluation and the plan share it."""

from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ldm_privacy.attacks.base import Attack
from ldm_privacy.audit.audit import Audit
from ldm_privacy.audit.checks import audited_timesteps
from ldm_privacy.audit.measure import Measuring
from ldm_privacy.audit.samples import AuditedSamples, MaskRule
from ldm_privacy.audit.views import with_views
from ldm_privacy.calibrations.base import Calibration
from ldm_privacy.data.conditions import views_of
from ldm_privacy.diffusion import flow_alphas_cumprod, flow_sigma
from ldm_privacy.errors import UserError
from ldm_privacy.evidence.gate import Gate
from ldm_privacy.geometry.distortion import Distortion
from ldm_privacy.models.codec import Codec
from ldm_privacy.recipes.data_setup import DataSetup
from ldm_privacy.recipes.gate import gate_of
from ldm_privacy.runs.history import Provenance
from ldm_privacy.targets.target import Target
from ldm_privacy.types import AuditKey, Condition, Intervals, Progress, Whose
from ldm_privacy.watch.generated import Generated
from ldm_privacy.watch.generations import Generations
from ldm_privacy.watch.onset import OnsetDetector
from ldm_privacy.watch.watcher import Every, Watcher


class Setup(DataSetup):
    """The audit of one run or target; see `DataSetup` for its arguments. A subclass writes `condition`."""

    @property
    def facts(self) -> dict[str, str]:
        """More for the protocol of a report."""
        return {}

    def checked(self, target: Target, means: Tensor) -> Target:
        """The target, looked at before anything costly is measured; `means` are of all audited samples."""
        return target

    @cached_property
    def views(self) -> dict[str, Condition]:
        """Other conditions of the audited samples, by name; none for an unconditional denoiser."""
        own = self.condition(self.audited_index)
        if not own:
            return {}
        asked = {*self.config.audit.views, *(view for attack in self.attacks.values() for view in attack.views)}
        views = views_of(asked, self.audited_index, own, self.condition.null(), seed=self.split_seed)
        if asked - {*views}:
            views |= self.condition.reduced(self.audited_index)
        return views

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
    def gate(self) -> Gate | None:
        """The configured limits; None where there are none."""
        return gate_of(self.config.gate)

    @cached_property
    def masks(self) -> dict[str, MaskRule]:
        """The configured mask rules by label."""
        return {label: rule.build(seed=self.config.seed) for label, rule in self.config.audit.masks.items()}

    @cached_property
    def timesteps(self) -> list[int]:
        """That every attack queries. Raises UserError, see `audited_timesteps`."""
        audit = self.config.audit
        return audited_timesteps(audit.timesteps, audit.sigmas, self.prediction_type, self.num_train_timesteps)

    @property
    def sigmas(self) -> dict[int, float]:
        """Of a flow, the share of noise at each of them; otherwise {}."""
        if self.prediction_type != "flow":
            return {}
        sigma = flow_sigma(flow_alphas_cumprod(self.num_train_timesteps))
        return {timestep: float(sigma[timestep]) for timestep in self.timesteps}

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
        settings = with_views(self.attacks, config.audit.views)[0], self.masks, self.timesteps
        return Provenance.of(split.hash, config.seed, *settings, cross_fit=config.audit.cross_fit)

    @property
    def intervals(self) -> Intervals:
        """How intervals are made."""
        audit = self.config.audit
        return Intervals(audit.confidence, audit.num_bootstrap, self.config.seed)

    def detector(self) -> OnsetDetector:
        """A new one: each quantity has its own."""
        return OnsetDetector(self.config.audit.onset.num_consecutive, self.config.audit.confidence)

    @cached_property
    def _known(self) -> dict[str, Any]:
        """Columns of the audited samples that nothing is measured for."""
        index = self.audited_index
        return {
            "group": self.data.groups(index),
            "condition": self.condition(index),
            "views": self.views,
            "repeats": self.repeats(index),
        }

    def samples(self, measuring: Measuring, means: Tensor) -> AuditedSamples:
        """This process's audited samples, measured. `means`: of all audited samples."""
        component = self.config.geometry.influence
        settings = {"estimator": component.name, "arguments": component.arguments, "seed": self.config.seed}
        return measuring.samples(
            self.audited_index,
            means,
            self.audited_members,
            **self._known,
            influence=self.influence,
            influence_settings=settings,
            distortion=self.distortion,
            distortion_index=self.distortion_index,
        )

    def blank_samples(self, codec: Codec) -> AuditedSamples:
        """As `samples`, but with nothing encoded or measured: for checks and for the plan."""
        shape = self.latent_shape(codec)
        zeros = torch.zeros(1, *shape).expand(len(self.audited_index), *shape)
        return AuditedSamples(
            zeros,
            self.audited_members,
            self.audited_index,
            **self._known,
            influence=None if codec.network is None else zeros,
            complexity=torch.zeros(len(self.audited_index), dtype=torch.float64),
            deviation=torch.zeros(shape),
        )

    def audit(self, samples: AuditedSamples, *, whose_reference: Whose = "") -> Audit:
        """The audit of the configured attacks and masks. `whose_reference`: see `Audit`; none by default."""
        config = self.config.audit
        return Audit(
            samples,
            self.attacks,
            self.masks,
            self.timesteps,
            sigmas=self.sigmas,
            views=config.views,
            keep_fractions=config.keep_fractions,
            calibrations=self.calibrations,
            calibrated=self.calibrated,
            whose_reference=whose_reference,
            by_coins=self.data.split.by_coins,
            cross_fit=config.cross_fit,
            autocast=torch.bfloat16 if config.precision == "bfloat16" else None,
            seed=self.config.seed,
            intervals=self.intervals,
            target_fprs=config.target_fprs,
        )

    def watchers(self, samples: AuditedSamples, progress: Progress) -> dict[str, Watcher]:
        """The configured watchers beside the audits, by label."""
        config, split = self.config, self.data.split
        every = Every(epochs=config.audit.every_n_epochs)
        provided = {
            "samples": samples,
            "images": self.data.images,
            "member_index": split.member_index,
            "heldout_index": split.heldout_index,
            "groups": self.data.groups,
            "generated": Generated(),
            "every": every,
            "seed": config.seed,
            "intervals": self.intervals,
            "words": self.condition.words,
            "progress": progress,
            "in_evaluation": config.gate.copies is not None,
        }
        watchers = {label: each.build_a(Watcher, **provided, onset=self.detector()) for label, each in config.watch.items()}
        for each in watchers.values():
            if isinstance(each, Generations) and config.gate.copies is not None and config.audit.stop.at is not None:
                each.every = every  # the gate acts upon each audit by what was counted at that one
        return watchers
