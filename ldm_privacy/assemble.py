"""From a checked config to built objects: the one library module that sees both. train.py and evaluate.py share it, so that
an evaluation rebuilds exactly what the training run had.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import cached_property, partial
from typing import Any, Protocol

import torch
from diffusers import AutoencoderKL, DDPMScheduler
from torch import Tensor, nn

from ldm_privacy import __version__
from ldm_privacy.attacks import Attack
from ldm_privacy.audit import COMBINED, Audit, MaskRule, SampleGeometry
from ldm_privacy.config import Config
from ldm_privacy.data import ImageData, Split
from ldm_privacy.errors import UserError
from ldm_privacy.models.latent_space import (
    LatentNormalisation,
    LatentSpace,
    encode_images,
    fit_normalisation,
    posterior_mean,
)
from ldm_privacy.randomness import uniform
from ldm_privacy.training.autoencoder import AutoencoderModule
from ldm_privacy.training.checkpoint import FORMAT, RECORD
from ldm_privacy.training.denoiser import DenoiserModule
from ldm_privacy.training.device import allow_tf32, explain_out_of_memory
from ldm_privacy.training.processes import gather, share_of
from ldm_privacy.types import AuditBatch, AuditKey


class Done(Protocol):
    """Called with the number done so far, and the number in all where that wasn't known before."""

    def __call__(self, done: int, total: int | None = None) -> None: ...


Progress = Callable[[str, int], AbstractContextManager[Done]]
"""progress(description, total) shows a bar while its context lasts; total 0 = not known yet."""


class Experiment:
    """The objects of one run, built from its config on first use.

    Args:
        config: Checked.
        progress: Shows how far the long preparations are; see `Progress`.
        split: Who is a member; drawn from the config where None (a checkpoint brings its own).
    """

    def __init__(self, config: Config, progress: Progress, *, split: Split | None = None):
        self.config = config
        self.progress = progress
        self._split = split

    @classmethod
    def from_checkpoint(cls, config: Config, checkpoint: Mapping[str, Any], progress: Progress) -> "Experiment":
        """The experiment that a checkpoint came from, with its split."""
        return cls(config, progress, split=Split.from_state_dict(checkpoint[RECORD]["split"]))

    @cached_property
    def device(self) -> torch.device:
        """Where encoding, influence and evaluation run: the trainer's accelerator."""
        accelerator = self.config.trainer.accelerator
        if accelerator == "auto":
            accelerator = "gpu" if torch.cuda.is_available() else "cpu"
        available = {"gpu": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
        if not available[accelerator]:
            raise UserError(f"trainer.accelerator: '{accelerator}' is not there. Use cpu or auto.")
        if accelerator == "gpu":
            allow_tf32(self.config.trainer.tf32)
        return torch.device("cuda" if accelerator == "gpu" else accelerator)

    @property
    def split_seed(self) -> int:
        """Of the split and of which samples are audited: the same for runs that are to be compared sample by sample."""
        seed = self.config.data.seed
        return self.config.seed if seed is None else seed

    @cached_property
    def data(self) -> ImageData:
        """The images of the split, loaded."""
        config = self.config.data
        data = ImageData(
            config.source.build(),
            resolution=config.resolution,
            channels=config.channels,
            num_members=config.num_members,
            num_heldout=config.num_heldout,
            num_public=config.num_public,
            index_file=config.index_file,
            group_column=config.group_column,
            seed=self.split_seed,
        )
        with self.progress("Reading images", 0) as done:
            data.prepare(progress=done, split=self._split)
        return data

    def build_autoencoder(self) -> AutoencoderKL:
        """The configured autoencoder: random weights or pretrained."""
        torch.manual_seed(self.config.seed)
        config = self.config.data
        return self.config.autoencoder.network.build(image_channels=config.channels, resolution=config.resolution)

    def autoencoder_module(self) -> AutoencoderModule:
        """Stage 1, ready to fit."""
        config, split = self.config.autoencoder, self.data.split
        parts = {
            "members": [split.member_index],
            "public": [split.public_index],
            "all": [split.member_index, split.public_index],
        }
        rows = torch.cat(parts[config.train_on])
        if not len(rows):
            raise UserError("autoencoder.train_on: 'public' needs public images; set data.num_public.")
        return AutoencoderModule(
            self.build_autoencoder(),
            self.data.pixels(rows),
            reconstruction=config.reconstruction,
            kl_weight=config.kl_weight,
            flip=self.config.data.flip,
            batch_size=config.batch_size,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            seed=self.config.seed,
            compile_mode=self.config.trainer.compile,
            channels_last=self.config.trainer.channels_last,
        )

    def latent_space(self, autoencoder: AutoencoderKL, normalisation: LatentNormalisation | None = None) -> LatentSpace:
        """The denoiser's coordinates; the normalisation is computed from the members where it isn't given."""
        autoencoder.to(self.device)
        if normalisation is None:
            means = self._encode_members(partial(posterior_mean, autoencoder), "Encoding members")
            normalisation = fit_normalisation(means, self.config.denoiser.normalisation)
        return LatentSpace(autoencoder, normalisation).to(self.device)

    @cached_property
    def audited_index(self) -> Tensor:
        """Sample indices of the audit, ascending: at most `audit.max_samples` a side, chosen by a hash of the index."""
        return self.first_by_hash(self.config.audit.max_samples)

    @cached_property
    def distortion_index(self) -> Tensor:
        """Sample indices with a local distortion, ascending: at most `geometry.distortion_max_samples` a side of the audit."""
        chosen = self.first_by_hash(self.config.geometry.distortion_max_samples)
        return chosen[torch.isin(chosen, self.audited_index)]

    def audit(self, geometry: SampleGeometry) -> Audit:
        """The audit of the configured attacks and masks."""
        config = self.config.audit
        return Audit(
            self.attacks(),
            self.masks(),
            geometry,
            config.timesteps,
            self.data.is_calibration,
            keep_fractions=config.keep_fractions,
            combine=config.combine,
            autocast=torch.bfloat16 if config.precision == "bfloat16" else None,
            groups=self.data.groups,
            seed=self.config.seed,
            confidence=config.confidence,
            num_bootstrap=config.num_bootstrap,
            target_fprs=config.target_fprs,
        )

    def attacks(self) -> dict[str, Attack]:
        """The configured attacks by label."""
        return {label: attack.build() for label, attack in self.config.audit.attacks.items()}

    def masks(self) -> dict[str, MaskRule]:
        """The configured mask rules by label."""
        return {label: rule.build(seed=self.config.seed) for label, rule in self.config.audit.masks.items()}

    @cached_property
    def onset_key(self) -> AuditKey:
        """Attack and mask of the onset."""
        audit, onset = self.config.audit, self.config.audit.onset
        if not audit.attacks or not audit.masks:
            raise UserError("audit.attacks and audit.masks: name at least one of each.")
        attack = onset.attack or next(iter(audit.attacks))
        if attack not in audit.attacks and not (audit.combine and attack == COMBINED):
            raise UserError(f"audit.onset.attack: '{attack}' is not in audit.attacks ({', '.join(audit.attacks)}).")
        if onset.mask not in audit.masks:
            raise UserError(f"audit.onset.mask: '{onset.mask}' is not in audit.masks ({', '.join(audit.masks)}).")
        return AuditKey(attack, onset.mask)

    def scheduler(self) -> DDPMScheduler:
        """The noise schedule."""
        config = self.config.denoiser
        if wrong := [t for t in self.config.audit.timesteps if not 0 <= t < config.num_train_timesteps]:
            last = config.num_train_timesteps - 1
            raise UserError(f"audit.timesteps: {wrong[0]} is outside the noise schedule, 0 to {last}.")
        if not self.config.audit.timesteps:
            raise UserError("audit.timesteps: empty; name at least one timestep.")
        return DDPMScheduler(
            num_train_timesteps=config.num_train_timesteps,
            beta_schedule=config.beta_schedule,
            beta_start=config.beta_start,
            beta_end=config.beta_end,
            prediction_type=config.prediction_type,
        )

    def network(self, latent_shape: torch.Size) -> nn.Module:
        """The denoiser with random weights."""
        torch.manual_seed(self.config.seed)
        return self.config.denoiser.network.build(latent_channels=latent_shape[0], latent_size=latent_shape[-1])

    def denoiser_module(self, latent_space: LatentSpace, audited: AuditBatch, *, train: bool = True) -> DenoiserModule:
        """Stage 2. With `train` the members are encoded once (and once mirrored when flips are on)."""
        config = self.config.denoiser
        latents = audited.latent[None, :0]
        if train:
            variants = [self._encode_members(latent_space.encode, "Encoding members")]
            if self.config.data.flip:
                mirrored = self._encode_members(lambda image: latent_space.encode(image.flip(-1)), "Encoding mirrored members")
                variants.append(mirrored)
            latents = torch.stack(variants)
        return DenoiserModule(
            self.network(audited.latent.shape[1:]),
            self.scheduler(),
            latents,
            audited,
            audit_batch_size=self.config.audit.batch_size,
            batch_size=config.batch_size,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            seed=self.config.seed,
            warmup_steps=config.warmup_steps,
            compile_mode=self.config.trainer.compile,
            channels_last=self.config.trainer.channels_last,
        )

    def record(self, stage: str, config_yaml: str, latent_space: LatentSpace | None = None) -> dict[str, Any]:
        """What a checkpoint holds beside the weights that Lightning stores: enough to rebuild everything from it alone."""
        record: dict[str, Any] = {
            "format": FORMAT,
            "version": __version__,
            "stage": stage,
            "config": config_yaml,
            "split": self.data.split.state_dict(),
            # With copies taken out the hash is of more images than the split that is stored names.
            "content_hash": None if self.data.duplicates.num_heldout_copies else self.data.duplicates.content_hash,
        }
        if latent_space is not None:
            autoencoder = latent_space.autoencoder
            settings = {key: value for key, value in autoencoder.config.items() if not key.startswith("_")}
            record["autoencoder_config"] = {k: list(v) if isinstance(v, tuple) else v for k, v in settings.items()}
            record["autoencoder"] = {name: value.cpu() for name, value in autoencoder.state_dict().items()}
            record["normalisation"] = latent_space.normalisation.state_dict()
        return record

    def latent_shape(self, autoencoder: AutoencoderKL) -> torch.Size:
        """(channels, height, width) of the latents; one encoder pass with an empty image."""
        size = self.config.data.resolution
        with torch.no_grad():
            return posterior_mean(autoencoder, torch.zeros(1, self.config.data.channels, size, size)).shape[1:]

    def describe(self) -> str:
        """The data in a few lines: sizes, split hash, what was taken out."""
        split = self.data.split
        lines = [
            f"{len(split.member_index)} members, {len(split.heldout_index)} held-out, {len(split.public_index)} public; "
            f"split {split.hash[:12]}, seed {self.config.seed}, on {self.device}"
        ]
        if (found := str(self.data.duplicates)) != "no identical images":
            lines.append(f"Identical images: {found}; held-out copies of members were taken out.")
        return "\n".join(lines)

    def first_by_hash(self, limit: int | None) -> Tensor:
        """At most so many members and held-out samples, chosen by a hash of the sample index; ascending."""
        sides = []
        for side in (self.data.split.member_index, self.data.split.heldout_index):
            order = uniform("audited", (self.split_seed, side), ()).argsort()
            sides.append(side[order[:limit]])
        return torch.cat(sides).sort().values

    def _encode_members(self, function: Callable[[Tensor], Tensor], description: str) -> Tensor:
        """`encode` of all members in every process, each of which encodes its share."""
        members = self.data.split.member_index
        return torch.cat(gather(self.encode(function, members[share_of(len(members))], description)))

    def encode(self, function: Callable[[Tensor], Tensor], index: Tensor, description: str) -> Tensor:
        """`function` of the images of those samples, batch by batch behind a progress bar, on the CPU."""
        batch_size = self.config.audit.batch_size
        advice = f"while encoding images: lower audit.batch_size (now {batch_size})."
        with explain_out_of_memory(lambda: advice), self.progress(description, len(index)) as done:
            return encode_images(function, self.data.images, index, batch_size=batch_size, progress=done)
