"""What is known of a config before anything is loaded: whether a training would refuse it, and what trainings must share to be
compared."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from ldm_privacy.config.check import labelled
from ldm_privacy.config.data_section import DataConfig
from ldm_privacy.config.privacy import check_privacy
from ldm_privacy.recipes.gate_check import check_gate
from ldm_privacy.recipes.pilots import read_pilots
from ldm_privacy.targets.place import check_base

OF_TRAINING = ("seed", "flip", "repeats")
"""Of the data section, what changes neither an image nor, for one seed, who is a member."""
LOOKED_AT = ("num_images", "num_steps", "guidance_scale", "feature_network")
"""Of `watch.quality`, what moves a distance."""


def check_trainable(tree: Mapping[str, Any]) -> None:
    """Raise UserError for a gate, a base, pilots or a privacy that this config can't be trained with.

    What an interpolation stands for is not looked into; the training asks again when that is known.

    Args:
        tree: A whole config, whose keys were checked.
    """
    check_gate(tree)
    check_base_of(tree)
    if "${" not in str(tree.get("audit")):
        read_pilots(tree)
    if "${" not in str(tree):
        check_privacy(tree)


def check_base_of(tree: Mapping[str, Any]) -> None:
    """Raise UserError where what a config takes from its base isn't there, or is of another class, as far as names tell."""
    denoiser, autoencoder = (tree.get(name) or {} for name in ("denoiser", "autoencoder"))
    unet, codec, condition = denoiser.get("network"), autoencoder.get("network"), denoiser.get("condition")
    unet = {"class": unet} if isinstance(unet, str) else unet or {}
    if unet.get("class") != "pretrained" or "${" in str(tree.get("base")):
        return
    weights = "diffusion_pytorch_model.safetensors"
    parts = {unet.get("subfolder", "unet"): (weights, "UNet2DConditionModel")}
    if isinstance(codec, Mapping) and codec.get("class") == "pretrained" and codec.get("path") is None:
        parts[codec.get("subfolder") or "."] = (weights, "AutoencoderKL")
    if isinstance(condition, Mapping) and condition.get("encoder") == "base":
        parts[condition.get("subfolder") or "text_encoder"] = ("model.safetensors", "CLIPTextModel")
    check_base(tree.get("base"), parts)


def places_of(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Where a config, or what overrides one, says that lies what a checkpoint looks up; see `Checkpoint.read`."""
    codec = (tree.get("autoencoder") or {}).get("network")
    return {"base": tree.get("base"), "autoencoder": codec.get("path") if isinstance(codec, Mapping) else None}


def data_of(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The images of a config and who of them is a member, but for the seed; defaults too."""
    given = {**(tree.get("data") or {})}
    if isinstance(given.get("source"), str):
        given["source"] = {"class": given["source"]}
    defaults = {each.name: None if each.default is MISSING else each.default for each in fields(DataConfig)}
    return {name: given.get(name, default) for name, default in defaults.items() if name not in OF_TRAINING}


def quality_of(tree: Mapping[str, Any]) -> dict[str, Any] | None:
    """How a config looks at quality, but for when; defaults too. None where it doesn't."""
    for given in labelled(tree.get("watch") or {}, "watch").values():
        given = {"class": given} if isinstance(given, str) else given
        if given.get("class") == "quality":
            from ldm_privacy.watch.quality import Quality

            return {each.name: given.get(each.name, each.default) for each in fields(Quality) if each.name in LOOKED_AT}
    return None


def difference(one: Mapping[str, Any], other: Mapping[str, Any], section: str) -> str:
    """The first key in which both differ, as "data.num_members=64, not 32"; "" where there is none."""
    return next((f"{section}.{key}={one[key]}, not {other[key]}" for key in one if one[key] != other[key]), "")
