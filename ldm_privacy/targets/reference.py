"""A second target that attacks on the first are calibrated against."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ldm_privacy.errors import UserError
from ldm_privacy.models.codec import Codec
from ldm_privacy.targets.target import Target
from ldm_privacy.types import Whose

THREATS = {
    "outsider": "an outsider, who has the model and its reference",
    "insider": "an insider, who has the run's checkpoints",
}


def with_reference(target: Target, other: Target, path: Path) -> Target:
    """The target with another as its reference.

    Raises UserError where latents or conditions of one mean nothing to the other: another codec, another kind of condition,
    other noise at its timesteps.

    Args:
        target: What is audited.
        other: Its reference: the base, or an earlier checkpoint.
        path: Where the other lies, for messages.
    """
    if not have_one_codec(target.codec, other.codec):
        raise UserError(
            f"reference: {path} has another autoencoder, or other latents, than the target; name one with the same."
        )
    kinds = [(each.encoder is not None, each.num_classes) for each in (target, other)]
    if kinds[0] != kinds[1]:
        raise UserError(f"reference: {path} is told another kind of condition than the target; name its base.")
    if not have_one_noise(target.predictor, other.predictor):
        raise UserError(f"reference: {path} has other noise at its timesteps than the target; name one of the same schedule.")
    facts = {**target.facts, "reference": f"{path}: {other.facts.get('target', 'a target')}"}
    return replace(
        target,
        reference=other.predictor,
        reference_encoder=other.encoder,
        reference_fingerprint=other.fingerprint,
        facts=facts,
    )


def of_whom(target: Target, whose: Whose | None) -> Target:
    """The target with whose its reference is, which is said; None: anybody's, as is assumed. Raises UserError without one."""
    if target.reference is None:
        if whose is not None:
            raise UserError(f"reference_is: {whose}, and the target has no reference; name one (reference=), or leave it out.")
        return target
    words = THREATS[whose or "outsider"]
    if whose is None:
        words += " (assumed public; say target.reference_is=insider where it isn't)"
    facts = {**target.facts, "threat model of the reference": words}
    return replace(target, insiders_reference=whose == "insider", facts=facts)


def have_one_noise(mine: Any, theirs: Any) -> bool:
    """Whether both see the same noise at each timestep: of two predictors, or of what checkpoints say of theirs."""
    abar, other = (each.alphas_cumprod.double().cpu() for each in (mine, theirs))
    is_flow = [getattr(each, "prediction_type", "epsilon") == "flow" for each in (mine, theirs)]
    return abar.shape == other.shape and is_flow[0] == is_flow[1] and torch.allclose(abar, other, rtol=1e-3, atol=1e-6)


def have_one_codec(mine: Codec, theirs: Codec) -> bool:
    """Whether both make the same latents of an image."""
    maps = mine.channel_map, theirs.channel_map
    if type(mine) is not type(theirs) or mine.settings() != theirs.settings():
        return False
    if not all(torch.equal(getattr(maps[0], part), getattr(maps[1], part)) for part in ("shift", "matrix")):
        return False
    weights, others = mine.weights(), theirs.weights()
    return weights.keys() == others.keys() and all(torch.equal(value, others[name]) for name, value in weights.items())
