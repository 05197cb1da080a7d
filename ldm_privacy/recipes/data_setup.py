"""From a checked config to the data and who of them is audited, each on first use."""

from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ldm_privacy.audit.measure import Measuring
from ldm_privacy.config import EvaluationConfig
from ldm_privacy.data.conditions import ConditionSource
from ldm_privacy.data.module import ImageData
from ldm_privacy.data.split import Split
from ldm_privacy.device import device_of, limit_memory
from ldm_privacy.diffusion import PredictionType
from ldm_privacy.models.codec import Codec
from ldm_privacy.plugins import blamed_on
from ldm_privacy.randomness import uniform
from ldm_privacy.registry import IMAGE_SOURCES
from ldm_privacy.types import Progress


class DataSetup:
    """The images of one run, what is told of them, and who is audited. A subclass writes `condition`.

    Args:
        config: Checked.
        progress: Shows how far the long preparations are; see `Progress`.
        split: Who is a member; drawn from the config where None (a checkpoint brings its own).

    Attributes:
        memory: Of what was measured, see `Measuring`; give one where several targets are audited one after the other.
    """

    def __init__(self, config: EvaluationConfig, progress: Progress, *, split: Split | None = None):
        limit_memory(config.audit.memory_gib)
        self.config = config
        self.progress = progress
        self._split = split
        self.memory: dict[str, Any] | None = None

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
                memory_gib=config.memory_gib,
                by_coins=config.split == "coin",
                split=self._split,
                progress=done,
            )

    @property
    def condition(self) -> ConditionSource:
        """What the denoiser is told of each image."""
        raise NotImplementedError

    @property
    def num_train_timesteps(self) -> int:
        """Length of the noise schedule."""
        raise NotImplementedError

    @property
    def prediction_type(self) -> PredictionType:
        """What the denoiser outputs."""
        raise NotImplementedError

    @cached_property
    def audited_index(self) -> Tensor:
        """Sample indices of the audit, ascending: at most `audit.max_samples` a side, chosen by a hash of the index.

        Of a split by coins at most twice so many, whichever side they are on: who is audited must say nothing of the coins.
        """
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

    def latent_shape(self, codec: Codec) -> torch.Size:
        """(channels, height, width) of the latents."""
        with blamed_on(codec):
            channels, height, width = codec.latent_shape(self.config.data.channels, self.config.data.resolution)
        return torch.Size((channels, height, width))

    def measuring(self, codec: Codec, store_folder: Path | None) -> Measuring:
        """What it takes to measure images with that codec."""
        return Measuring(
            codec.to(self.device),
            self.data.images,
            self.data.duplicates.content_hash,
            store_folder,
            self.device,
            self.progress,
            self.memory,
            self.config.data.memory_gib,
        )

    def describe(self) -> str:
        """The data in a few lines: sizes, split hash, what was taken out."""
        split = self.data.split
        lines = f"{split}; split {split.hash[:12]}, seed {self.config.seed}, on {self.device}"
        if (repeats := self.repeats(split.member_index)) is not None:
            num_planted, times = int((repeats > 1).sum()), self.config.data.repeats.times
            lines += f"\nPlanted duplicates: {num_planted} members come {times} times in an epoch."
        if (found := str(self.data.duplicates)) != "no identical images":
            lines += f"\nIdentical images: {found}."
        return lines

    def _first_by_hash(self, limit: int | None) -> Tensor:
        """At most so many a side, chosen by a hash of the sample index; ascending. See `audited_index`."""
        split, sides = self.data.split, []
        for side in (split.audited_index,) if split.by_coins else (split.member_index, split.heldout_index):
            order = uniform("audited", (self.split_seed, side), ()).argsort()
            sides.append(side[order[: limit and limit * (1 + split.by_coins)]])
        return torch.cat(sides).sort().values
