"""A UNet2DConditionModel of somebody else's, to be fine-tuned: Stable Diffusion's."""

import inspect
import logging
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import nn

from ldm_privacy.errors import UserError
from ldm_privacy.models.part import Part
from ldm_privacy.models.weights import built_with, read_safetensors, with_new_names
from ldm_privacy.registry import DENOISERS

log = logging.getLogger("ldm_privacy")

KIND = "UNet2DConditionModel"
_MORE = ("addition_embed_type", "class_embed_type", "encoder_hid_dim_type", "num_class_embeds", "time_cond_proj_dim")
"""Settings of UNets that are told more than a caption."""


@DENOISERS.register("pretrained")
def pretrained_unet(
    *,
    latent_channels: int,
    latent_size: int,
    cross_attention_dim: int | None = None,
    base: str | None = None,
    subfolder: str = "unet",
    revision: str | None = None,
    sha256: str | None = None,
    config: dict[str, Any] | None = None,
) -> nn.Module:
    """(z_t, t, encoder_hidden_states=(batch, tokens, width)) -> output like z_t.

    Not by diffusers' own loader, which leaves weights that the file lacks uninitialised. What a checkpoint needs to know
    beside these arguments is the network's attribute `origin`: `sha256` and `config`.

    Args:
        latent_channels, latent_size: Of the latents.
        cross_attention_dim: Width of the caption's embedding. The condition says it; UserError where none does.
        base: A diffusers pipeline's local folder, or its Hub id; the program gives it.
        subfolder: Where in it the UNet lies.
        revision: Branch, tag or commit on the Hub.
        sha256: That its files must have; a checkpoint says it.
        config: Of a checkpoint that holds the weights: then no file is looked at, and weights are random.

    Raises:
        UserError: It isn't there, is of another architecture, or is told more than a caption; a weight is missing or unknown.
    """
    if config is not None:
        return UNet2DConditionModel.from_config(dict(config))
    if cross_attention_dim is None:
        raise UserError("'pretrained' attends to captions: set denoiser.condition.class=captions, encoder=base.")
    if base is None:
        raise UserError("no base is named; give base=FOLDER (or a Hub id), the pipeline that is fine-tuned.")
    where = {"base": base, "subfolder": subfolder, "revision": revision}
    if sha256 is not None:
        part = Part.of_checkpoint({**where, "sha256": sha256})
    else:
        try:
            part = Part.find(base, subfolder=subfolder, revision=revision)
        except FileNotFoundError as error:
            raise UserError(f"no denoiser could be loaded from '{base}' ({error}); name another base=FOLDER.") from None
    folder = part.config.parent
    settings = part.settings(KIND)
    check_told(str(folder), settings, latent_channels=latent_channels, width=cross_attention_dim, kind="fine-tuning")
    known = inspect.signature(UNet2DConditionModel.__init__).parameters
    if foreign := [name for name, value in settings.items() if name not in known and name[0] != "_" and value]:
        log.warning("%s: settings that a %s doesn't have here are left out: %s", folder, KIND, ", ".join(foreign))
    own = {name: value for name, value in settings.items() if name in known}
    weights = with_new_names(read_safetensors(part.weights))
    build = partial(UNet2DConditionModel.from_config, own)
    network = built_with(build, weights, f"{folder}: {KIND}", dtype=torch.float32)
    network.origin = {"sha256": part.sha256, "config": own}
    return network


def check_told(where: str, settings: Mapping[str, Any], *, latent_channels: int, width: int, kind: str) -> None:
    """Raise UserError, before it is read, for a UNet that is told more than latent and caption, or of other widths.

    Args:
        where: Of the UNet, as messages say it.
        settings: Of its config.json.
        latent_channels: Of the latents.
        width: Of the caption's embedding.
        kind: Of pipeline.
    """
    if more := [name for name in _MORE if settings.get(name) is not None]:
        is_xl = settings.get("addition_embed_type") == "text_time"
        hint = "; it may be a Stable Diffusion XL whose index lies" if is_xl else ""
        raise UserError(f"{where}: has {more[0]} {settings[more[0]]}, which a {kind} has no input for{hint}.")
    takes, returns = (settings.get(name, 4) for name in ("in_channels", "out_channels"))
    if takes != latent_channels or returns != latent_channels:
        raise UserError(
            f"{where}: takes {takes} channels and returns {returns}, but latents have {latent_channels}; a denoiser that is "
            "given more (for inpainting 9, for edits 8, for depth 5) can't be audited."
        )
    if (told := settings.get("cross_attention_dim", 1280)) != width:
        raise UserError(
            f"{where}: attends to texts of width {told}, but text_encoder gives {width}; they don't belong together."
        )
