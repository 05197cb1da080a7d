"""A second target that attacks on the first are calibrated against."""

from dataclasses import replace
from pathlib import Path

import torch

from ldm_privacy.errors import UserError
from ldm_privacy.targets.target import Target


def with_reference(target: Target, other: Target, path: Path) -> Target:
    """The target with another as its reference.

    Raises UserError where latents or conditions of one mean nothing to the other: another codec, another kind of condition.

    Args:
        target: What is audited.
        other: Its reference: the base, or an earlier checkpoint.
        path: Where the other lies, for messages.
    """
    if not have_one_codec(target, other):
        raise UserError(
            f"reference: {path} has another autoencoder, or other latents, than the target; name one with the same."
        )
    kinds = [(each.encoder is not None, each.num_classes) for each in (target, other)]
    if kinds[0] != kinds[1]:
        raise UserError(f"reference: {path} is told another kind of condition than the target; name its base.")
    facts = {**target.facts, "reference": f"{path}: {other.facts.get('target', 'a target')}"}
    return replace(
        target,
        reference=other.predictor,
        reference_encoder=other.encoder,
        reference_fingerprint=other.fingerprint,
        facts=facts,
    )


def have_one_codec(target: Target, other: Target) -> bool:
    """Whether both see the same latents of an image."""
    mine, theirs = target.codec, other.codec
    maps = mine.channel_map, theirs.channel_map
    if type(mine) is not type(theirs) or mine.settings() != theirs.settings():
        return False
    if not all(torch.equal(getattr(maps[0], part), getattr(maps[1], part)) for part in ("shift", "matrix")):
        return False
    weights, others = mine.weights(), theirs.weights()
    return weights.keys() == others.keys() and all(torch.equal(value, others[name]) for name, value in weights.items())
