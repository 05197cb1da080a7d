"""The audit of a target that was not trained here."""

from dataclasses import replace
from functools import cached_property

from torch import Tensor

from ldm_privacy.audit.samples import MaskRule
from ldm_privacy.config import TargetConfig
from ldm_privacy.data.captions import Captions
from ldm_privacy.data.conditions import ClassLabels, ConditionSource, Unconditional, check_condition
from ldm_privacy.diffusion import PredictionType
from ldm_privacy.errors import UserError
from ldm_privacy.models.predictor import NetworkPredictor
from ldm_privacy.recipes.setup import Setup
from ldm_privacy.targets.self_check import NUM_IMAGES, self_check
from ldm_privacy.targets.target import Target
from ldm_privacy.types import AuditKey, Progress


class TargetSetup(Setup):
    """What is audited is given; whom, says the config.

    Args:
        config, progress: See `DataSetup`.
        target: Open.
    """

    config: TargetConfig

    def __init__(self, config: TargetConfig, progress: Progress, target: Target):
        super().__init__(config, progress)
        self.target = target

    @cached_property
    def condition(self) -> ConditionSource:
        """As the target wants to be told: captions, class labels or nothing."""
        data, split = self.data, self.data.split
        source: ConditionSource = Unconditional()
        if (encoder := self.target.encoder) is not None:
            try:
                source = Captions(
                    captions=data.captions,
                    member_index=split.member_index,
                    heldout_index=split.heldout_index,
                    encoder=encoder,
                    memory_mib=self.config.target.memory_mib,
                    memory_key="target.memory_mib",
                )
            except UserError as error:
                raise UserError(f"the target is told captions: {error}") from None
            source.note = "an image's first caption"
        elif (num_classes := self.target.num_classes) is not None:
            source = ClassLabels(labels=self._labels, num_classes=num_classes, class_names=self._class_names(num_classes))
        check_condition(source, self.audited_index[:3])
        return source

    @cached_property
    def masks(self) -> dict[str, MaskRule]:
        """Without those by influence where no decoder has one."""
        found = super().masks
        if self.target.codec.network is not None:
            return found
        return {label: rule for label, rule in found.items() if getattr(rule, "ranks_by", "influence") != "influence"}

    def _labels(self, sample_index: Tensor) -> Tensor | None:
        return self.data.labels(sample_index)

    def _class_names(self, num_classes: int) -> list[str] | None:
        """Of the data, whose classes are taken to be the target's in their order. Raises UserError where they can't be."""
        found = self.data.num_classes
        if found is None:
            raise UserError(
                f"the target is told one of {num_classes} classes, and the data have no labels; name their column with "
                "data.source.label_column."
            )
        if found > num_classes:
            raise UserError(
                f"the target is told one of {num_classes} classes, and the data have {found}: data.source.label_column is not "
                "what it was trained with."
            )
        names = self.data.class_names
        return None if names is None else [*names, *(f"class {number}" for number in range(found, num_classes))]

    @property
    def num_train_timesteps(self) -> int:
        return len(self.target.predictor.alphas_cumprod)

    @property
    def prediction_type(self) -> PredictionType:
        """Of a predictor that is no network epsilon, which is what it returns."""
        predictor = self.target.predictor
        return predictor.prediction_type if isinstance(predictor, NetworkPredictor) else "epsilon"

    def checked(self, target: Target, means: Tensor) -> Target:
        """With how it and its reference did in the self-check. Raises UserError where one fits another convention better."""
        if not self.config.target.self_check:
            return target
        latent = target.codec.channel_map(means[:NUM_IMAGES]).to(self.device)
        told = self.condition(self.audited_index[:NUM_IMAGES])
        condition = {name: value.to(self.device) for name, value in told.items()}
        facts = dict(target.facts)
        for name, words, predictor in (
            ("target", "self-check", target.predictor),
            ("reference", "self-check of the reference", target.reference),
        ):
            if predictor is None:
                continue
            try:
                found = self_check(replace(target, predictor=predictor), latent, condition, seed=self.config.seed, name=name)
            except UserError as error:
                mend = "where it is right as declared, say target.self_check=false"
                raise UserError(f"{str(error).rstrip('.')}; {mend}.") from None
            if found is not None:
                facts[words] = str(found)
        return replace(target, facts=facts)

    @cached_property
    def onset_key(self) -> AuditKey:
        """Beside a reference Loss is the strongest of the plain attacks' log ratios, and the primary one by default."""
        key = super().onset_key
        if self.target.reference is None or self.config.audit.onset.attack is not None or "loss" not in self.attacks:
            return key
        return AuditKey("loss", key.mask)

    @cached_property
    def calibrated(self) -> list[AuditKey]:
        """The primary one first."""
        return sorted(super().calibrated, key=lambda key: key != self.onset_key)

    @property
    def facts(self) -> dict[str, str]:
        data, made_for = self.config.data, self.target.resolution
        found = {}
        if made_for is not None and made_for != data.resolution:
            found["resolution"] = f"images were brought to {data.resolution} px, the model was made for {made_for} px"
        if left := [label for label in self.config.audit.masks if label not in self.masks]:
            found["masks"] = f"without {', '.join(left)}: there is no decoder that influence could be of"
        return found
