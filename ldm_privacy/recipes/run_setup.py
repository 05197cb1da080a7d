"""From the checked config of a run of ours to what its two stages train."""

from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ldm_privacy.config import Config
from ldm_privacy.data.conditions import ConditionSource, check_condition
from ldm_privacy.data.split import Split
from ldm_privacy.diffusion import PredictionType
from ldm_privacy.errors import UserError
from ldm_privacy.losses.base import CodecLoss
from ldm_privacy.models.codec import Codec
from ldm_privacy.models.folder import file_of, settings_of
from ldm_privacy.models.kl import KLCodec
from ldm_privacy.models.schedule import training_schedule
from ldm_privacy.randomness import derive_seed
from ldm_privacy.recipes.setup import Setup
from ldm_privacy.registry import CODECS
from ldm_privacy.targets.denoiser import Denoiser
from ldm_privacy.targets.family import schedule_words
from ldm_privacy.targets.privacy import Privacy
from ldm_privacy.training.per_sample import epsilon
from ldm_privacy.training.timesteps import TimestepSampler
from ldm_privacy.types import Progress, Whose

CODEC_EPOCHS = 120
"""Of stage 1 where `autoencoder.max_epochs` says none (Rao, Qu, Moyer, 2511.20592)."""


class RunSetup(Setup):
    """The objects of a run of this program.

    Args:
        config, progress, split: See `DataSetup`.
        stored: What a checkpoint says of its denoiser; None in a new run.
        is_codec_trained: Stage 1 is over, so its losses are not built again.
    """

    config: Config

    def __init__(
        self,
        config: Config,
        progress: Progress,
        *,
        split: Split | None = None,
        stored: Denoiser | None = None,
        is_codec_trained: bool = False,
    ):
        super().__init__(config, progress, split=split)
        self._stored, self._is_codec_trained = stored, is_codec_trained

    @cached_property
    def condition(self) -> ConditionSource:
        data = self.data
        condition = self.config.denoiser.condition.build_a(
            ConditionSource,
            images=data.images,
            labels=data.labels,
            num_classes=data.num_classes,
            class_names=data.class_names,
            captions=data.captions,
            member_index=data.split.member_index,
            heldout_index=data.split.heldout_index,
            stored=None if self._stored is None else self._stored.condition,
            base=self.config.base,
        )
        check_condition(condition, self.audited_index[:3])
        return condition

    @property
    def is_tuned(self) -> bool:
        """Whether the denoiser begins as that of a base."""
        return self.config.denoiser.network.name == "pretrained"

    @property
    def whose_reference(self) -> Whose:
        """A base is anybody's; see `Audit`."""
        return "outsider" if self.is_tuned else ""

    @cached_property
    def schedule(self) -> tuple[Tensor, PredictionType]:
        """alphas_cumprod and what the denoiser outputs: a checkpoint's, or the base's, or as the config says.

        Raises UserError where the config has others than the base: it is the reference, and asked as the denoiser is.
        """
        if self._stored is not None:
            return self._stored.alphas_cumprod, self._stored.prediction_type
        config = self.config.denoiser
        names = "schedule", "prediction_type", "num_train_timesteps", "beta_start", "beta_end"
        given = {name: getattr(config, name) for name in names}
        found = training_schedule(self.base_scheduler, **given)
        if self.base_scheduler is not None:
            abar, kind = training_schedule(self.base_scheduler)
            if kind != found[1] or not torch.equal(abar, found[0]):
                differs = names[1:2] if kind != found[1] else names
                key = next(name for name in differs if given[name] is not None)
                raise UserError(
                    f"denoiser.{key}: {given[key]}, but a base goes on with the noise and the output that it was trained with "
                    f"({schedule_words(self.base_scheduler, abar, kind)}; {kind}); use denoiser.{key}=null."
                )
        return found

    @cached_property
    def base_scheduler(self) -> dict[str, Any] | None:
        """Settings of the base's scheduler; None where there is no base. Raises UserError where they aren't there."""
        if not self.is_tuned or self.config.base is None:
            return None
        try:
            revision = self.config.denoiser.network.arguments.get("revision")
            return settings_of(file_of(self.config.base, "scheduler_config.json", subfolder="scheduler", revision=revision))
        except (FileNotFoundError, UserError) as error:
            raise UserError(f"base: no noise schedule could be read ({error}); name another base=FOLDER.") from None

    @property
    def num_train_timesteps(self) -> int:
        return len(self.schedule[0])

    @property
    def prediction_type(self) -> PredictionType:
        """Raises UserError where it isn't the schedule's."""
        return self.schedule[1]

    @cached_property
    def codec(self) -> Codec:
        """The configured codec: random weights or pretrained."""
        torch.manual_seed(self.config.seed)
        config = self.config.data
        given = {"image_channels": config.channels, "resolution": config.resolution, "base": self.config.base}
        return self.config.autoencoder.network.build_a(Codec, **given)

    @property
    def autoencoder_index(self) -> Tensor:
        """The images that stage 1 trains on."""
        split, part = self.data.split, self.config.autoencoder.train_on
        index = {"members": [split.member_index], "public": [split.public_index]}
        return torch.cat(index.get(part) or [split.member_index, split.public_index])

    @property
    def autoencoder_batches(self) -> list[int]:
        """How many samples each step of an epoch of stage 1 has."""
        count, size = len(self.autoencoder_index), self.config.autoencoder.batch_size
        return [min(size, count - start) for start in range(0, count, size)]

    @cached_property
    def codec_epochs(self) -> int:
        """Of stage 1, which is skipped where the codec has nothing to train."""
        if (epochs := self.config.autoencoder.max_epochs) is not None:
            return epochs
        made = CODECS.get(self.config.autoencoder.network.name)  # not the codec itself: an evaluation doesn't build it
        return 0 if isinstance(made, type) and not issubclass(made, KLCodec) else CODEC_EPOCHS

    @cached_property
    def losses(self) -> dict[str, CodecLoss]:
        """The losses of stage 1 by label; none where it is over, or there is none."""
        config = self.config
        if self._is_codec_trained or not self.codec_epochs:
            return {}
        return {
            label: loss.build_a(
                CodecLoss,
                image_channels=config.data.channels,
                resolution=config.data.resolution,
                seed=derive_seed(f"loss {label}", config.seed),
                num_steps=self.codec_epochs * len(self.autoencoder_batches),
            )
            for label, loss in config.autoencoder.losses.items()
        }

    @cached_property
    def timestep_sampler(self) -> TimestepSampler:
        """Draws the timesteps of the denoiser's steps."""
        return self.config.denoiser.timestep_sampling.build_a(TimestepSampler, num_train_timesteps=self.num_train_timesteps)

    @cached_property
    def privacy(self) -> Privacy | None:
        """What DP-SGD guarantees before its first step; None without it."""
        config, members = self.config.denoiser, len(self.data.split.member_index)
        settings = config.privacy
        if settings.noise_multiplier is None:
            return None
        given = []
        if self.codec_epochs and self.config.autoencoder.train_on != "public":
            given.append("what the autoencoder has of the members that it was trained on")
        if config.channel_map.name != "none":
            given.append(f"what the channel map '{config.channel_map.name}' has of the members that it was fitted to")
        if part := self.condition.members_part:
            given.append(part)
        return Privacy(
            noise_multiplier=settings.noise_multiplier,
            max_gradient_norm=settings.max_gradient_norm,
            sample_rate=min(1.0, config.batch_size / members),
            delta=members**-1.1 if settings.delta is None else settings.delta,
            given=tuple(given),
        )

    @property
    def foretold_privacy(self) -> str:
        """How DP-SGD makes its steps, and what is guaranteed after the last, in words; "" without it."""
        if self.privacy is None:
            return ""
        steps = self.config.trainer.max_epochs * -(-len(self.data.split.member_index) // self.config.denoiser.batch_size)
        at_the_end = self.privacy.after(steps, epsilon(self.privacy, steps))
        return f"DP-SGD: {self.privacy.recipe}. At the end: {at_the_end}."

    @property
    def facts(self) -> dict[str, str]:
        trained = f"trained on {self.config.autoencoder.train_on}" if self.codec_epochs else "not trained here"
        found, sampling = {**super().facts, "autoencoder": trained}, self.config.denoiser.timestep_sampling
        if sampling.name != "uniform":
            found["timesteps of training"] = f"{sampling.name} {sampling.arguments or ''}".strip()
        return found
