"""Another checkpoint as the reference of one: may it be, whose is it, what is it in words."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ldm_privacy.config import Composed, Config, compose_stored
from ldm_privacy.config.compose import parse_overrides
from ldm_privacy.errors import UserError
from ldm_privacy.geometry.store import fingerprint
from ldm_privacy.models.predictor import NetworkPredictor
from ldm_privacy.recipes.known import check_base_of, places_of
from ldm_privacy.registry import CALIBRATIONS
from ldm_privacy.runs.folder import RunFolder
from ldm_privacy.targets.checkpoint import target_of_checkpoint
from ldm_privacy.targets.record import Checkpoint
from ldm_privacy.targets.reference import have_one_codec, have_one_noise, of_whom
from ldm_privacy.targets.target import Target

COMPARING = ("reference", "ratio")
"""Calibrations that are added where a reference is named and none looks at it; the last one decides the verdict."""


def read_with(path: Path, overrides: Sequence[str]) -> Checkpoint:
    """A checkpoint that looks up what it was trained on where the overrides say that it lies now."""
    return Checkpoint.read(path, **places_of(parse_overrides(overrides)))


def composed_with(checkpoint: Checkpoint, overrides: Sequence[str], reference: Checkpoint | None = None) -> Composed[Config]:
    """The checkpoint's config with the overrides; where there is a reference, with calibrations that look at it.

    Raises UserError for a base that isn't there, or of what has none.
    """
    if checkpoint.base is not None and checkpoint.denoiser.base is None:
        raise UserError(f"base: {checkpoint.path} was not fine-tuned, so it has none; leave it out.")
    composed = compose_stored(checkpoint.config, overrides)
    check_base_of(composed.tree)
    named = [CALIBRATIONS.get(each.name) for each in composed.config.audit.calibrations.values()]
    if reference is None or any(getattr(each, "needs_reference", False) for each in named):
        return composed
    return compose_stored(checkpoint.config, [*overrides, *(f"audit.calibrations.{name}.class={name}" for name in COMPARING)])


def check_references(paths: Sequence[Path], reference: Path, overrides: Sequence[str] = ()) -> None:
    """Raise UserError as `check_reference`, for each of those that is a checkpoint: before audits that take a while."""
    other = read_with(reference, overrides)
    for path in paths:
        if path.suffix != ".parquet":
            check_reference(read_with(path, overrides), other)


def check_reference(checkpoint: Checkpoint, reference: Checkpoint) -> None:
    """Raise UserError where one checkpoint can't be the reference of the other; the file and what to do are named."""
    mend = f"name a checkpoint that was trained on the latents and the noise that {checkpoint.path} was trained on"
    for what, is_same in (
        ("has another autoencoder, or other latents, than the target", have_one_codec(checkpoint.codec(), reference.codec())),
        ("has other noise at its timesteps than the target", have_one_noise(checkpoint.denoiser, reference.denoiser)),
        ("was built for latents of another shape", _shape(checkpoint) == _shape(reference)),
        ("is told something else of each image", _told(checkpoint) == _told(reference)),
    ):
        if not is_same:
            raise UserError(f"reference: {reference.path} {what}; {mend}.")
    if _is_of_run(checkpoint, reference) and reference.epoch >= checkpoint.epoch:
        raise UserError(
            f"reference: {reference.path} is of epoch {reference.epoch} of the run whose epoch {checkpoint.epoch} is audited; "
            "name an earlier one, or one of another run."
        )


def compared_with(target: Target, checkpoint: Checkpoint, reference: Checkpoint, device: torch.device) -> Target:
    """The target of a checkpoint with another checkpoint as its reference, which is told what the target is told.

    An earlier checkpoint of the same run is an insider's, any other an outsider's.
    """
    other = target_of_checkpoint(reference, device)
    is_earlier = _is_of_run(checkpoint, reference)
    words = f"{reference.path}, epoch {reference.epoch} of {'the same' if is_earlier else 'another'} run"
    if reference.content_hash == checkpoint.content_hash:
        members = checkpoint.split.member_index
        words += f", trained on {int(torch.isin(members, reference.split.member_index).sum())} of the {len(members)} members"
    weights, kind = reference.network().state_dict(), reference.denoiser.prediction_type
    assert isinstance(target.predictor, NetworkPredictor)
    assert isinstance(other.predictor, NetworkPredictor)
    compared = replace(
        target,
        reference=replace(other.predictor, given=target.predictor.given),
        reference_fingerprint={"denoiser": fingerprint(weights, {**reference.denoiser.network, "kind": kind}, torch.empty(0))},
        facts={**target.facts, "reference": words},
    )
    return of_whom(compared, "insider" if is_earlier else "outsider")


def _is_of_run(checkpoint: Checkpoint, reference: Checkpoint) -> bool:
    """Whether both are of one training: of one split of the same images, in one folder or with one config."""
    one_split = (checkpoint.split.hash, checkpoint.content_hash) == (reference.split.hash, reference.content_hash)
    folders = {RunFolder.around(each.path).path.resolve() for each in (checkpoint, reference)}
    return one_split and (len(folders) == 1 or checkpoint.config == reference.config)


def _shape(checkpoint: Checkpoint) -> list[Any]:
    return [checkpoint.denoiser.network.get(name) for name in ("latent_channels", "latent_size")]


def _told(checkpoint: Checkpoint) -> dict[str, Any]:
    """Its condition, without what each sample of its own split is told."""
    return {name: value for name, value in plain_record(checkpoint.denoiser.condition).items() if name != "hash"}


def plain_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """A condition's record without the tensors that a checkpoint gave back to it."""
    kept = {name: plain_record(value) if isinstance(value, Mapping) else value for name, value in record.items()}
    return {name: value for name, value in kept.items() if not isinstance(value, Tensor)}
