"""KL autoencoders: diffusers' AutoencoderKL, built small or loaded from a folder or the Hub."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from diffusers import AutoencoderKL
from diffusers.models.attention_processor import AttnProcessor
from pydantic import Field, PositiveInt
from torch import Tensor

from ldm_privacy.errors import UserError
from ldm_privacy.registry import AUTOENCODERS

Channels = Annotated[Sequence[PositiveInt], Field(min_length=1)]


@AUTOENCODERS.register("kl")
def kl_autoencoder(
    *,
    image_channels: int,
    resolution: int,
    block_out_channels: Channels = (128, 128, 256),
    layers_per_block: PositiveInt = 1,
    latent_channels: PositiveInt = 4,
    mid_block_attention: bool = False,
    norm_num_groups: PositiveInt = 32,
) -> AutoencoderKL:
    """A KL autoencoder with random weights; each block after the first halves height and width.

    The defaults are the CIFAR-10 autoencoder of Rao, Qu, Moyer (2511.20592): f = 4, 4 latent channels, no attention.

    Args:
        image_channels: 1 or 3.
        resolution: Image height and width; must be divisible by 2^(len(block_out_channels) - 1).
        block_out_channels: Channels per resolution, finest first; multiples of `norm_num_groups`.
        layers_per_block: Residual blocks per resolution in the encoder (the decoder has one more).
        latent_channels: Channels of the latent.
        mid_block_attention: Self-attention at the coarsest resolution.
        norm_num_groups: Groups of every group normalisation.

    Raises:
        UserError: A resolution that can't be halved that often, or channels that the groups don't divide.
    """
    factor = 2 ** (len(block_out_channels) - 1)
    if resolution % factor:
        raise UserError(
            f"data.resolution: {resolution} can't be halved {len(block_out_channels) - 1} times, as autoencoder.network."
            f"block_out_channels {list(block_out_channels)} asks. Use a multiple of {factor}, or fewer blocks."
        )
    check_groups("autoencoder.network", block_out_channels, norm_num_groups)
    num_blocks = len(block_out_channels)
    autoencoder = AutoencoderKL(
        in_channels=image_channels,
        out_channels=image_channels,
        down_block_types=("DownEncoderBlock2D",) * num_blocks,
        up_block_types=("UpDecoderBlock2D",) * num_blocks,
        block_out_channels=tuple(block_out_channels),
        layers_per_block=layers_per_block,
        latent_channels=latent_channels,
        norm_num_groups=norm_num_groups,
        mid_block_add_attention=mid_block_attention,
        sample_size=resolution,
    )
    return _twice_differentiable(autoencoder)


@AUTOENCODERS.register("pretrained")
def pretrained_autoencoder(
    *, path: str, subfolder: str | None = None, revision: str | None = None, image_channels: int, resolution: int
) -> AutoencoderKL:
    """An AutoencoderKL from a diffusers folder or a Hub id; safetensors only.

    Args:
        path: A local folder with `config.json` and `diffusion_pytorch_model.safetensors`, or a Hub id.
        subfolder: Where in it the autoencoder lies ("vae" in Stable Diffusion's repositories).
        revision: Branch, tag or commit on the Hub.
        image_channels, resolution: Of the data; they must fit the autoencoder.

    Raises:
        UserError: Nothing loadable there, or it doesn't fit the data.
    """
    try:
        autoencoder = AutoencoderKL.from_pretrained(
            path, subfolder=subfolder, revision=revision, use_safetensors=True, low_cpu_mem_usage=False
        )
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"autoencoder.network.path: no autoencoder could be loaded from '{path}' ({reason}). Name a local diffusers "
            "folder that holds config.json and diffusion_pytorch_model.safetensors (and autoencoder.network.subfolder)."
        ) from None
    factor = 2 ** (len(autoencoder.config["block_out_channels"]) - 1)
    if autoencoder.config["in_channels"] != image_channels or resolution % factor:
        raise UserError(
            f"autoencoder.network.path: '{path}' takes {autoencoder.config['in_channels']} channels and resolutions "
            f"divisible by {factor}, but data.channels is {image_channels} and data.resolution {resolution}."
        )
    return _twice_differentiable(autoencoder)


def autoencoder_from_state(config: Mapping[str, Any], state: Mapping[str, Any]) -> AutoencoderKL:
    """The autoencoder that a checkpoint holds: diffusers config and weights.

    Nothing is allocated before the sizes in the config are known to be those of the weights.

    Raises:
        UserError: The config is none of an autoencoder, or the weights don't fit it.
    """
    refused = "ckpt: the autoencoder in the checkpoint can't be used ({}). Use another checkpoint."
    blocks, depth = config.get("block_out_channels"), config.get("layers_per_block")
    if not isinstance(blocks, Sequence) or not isinstance(depth, int) or len(blocks) * depth > len(state):
        raise UserError(refused.format(f"{blocks} channels with {depth} layers each for {len(state)} weights"))
    try:
        with torch.device("meta"):
            expected = AutoencoderKL.from_config(dict(config)).state_dict()
    except Exception as error:  # diffusers raises whatever it stumbles over in settings that it doesn't check
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(refused.format(reason)) from None
    if wrong := misfit(expected, state):
        raise UserError(refused.format(wrong))
    autoencoder = AutoencoderKL.from_config(dict(config))
    autoencoder.load_state_dict(dict(state))
    return _twice_differentiable(autoencoder).eval().requires_grad_(False)


def misfit(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str | None:
    """How stored weights differ in names and shapes from those of a network, in words; None where they fit."""
    if missing := [name for name in expected if name not in state]:
        return f"{len(missing)} weights are missing, the first '{missing[0]}'"
    if unknown := [name for name in state if name not in expected]:
        return f"{len(unknown)} weights are unknown, the first '{unknown[0]}'"
    for name, weight in expected.items():
        stored = state[name]
        if stored.shape != weight.shape:
            return f"'{name}' has shape {tuple(stored.shape)}, not {tuple(weight.shape)}"
        # A weight that repeats a few stored numbers could ask for any amount of memory.
        if stored.layout != torch.strided or stored.untyped_storage().nbytes() < stored.numel() * stored.element_size():
            return f"'{name}' is not stored whole"
    return None


def save_autoencoder(autoencoder: AutoencoderKL, folder: Path) -> None:
    """Write a diffusers folder (config.json, safetensors) that `pretrained` and diffusers itself load."""
    autoencoder.save_pretrained(folder, safe_serialization=True)


def check_groups(key: str, block_out_channels: Sequence[int], norm_num_groups: int) -> None:
    """Raise UserError where a group normalisation can't divide its channels."""
    for channels in block_out_channels:
        if channels % norm_num_groups:
            raise UserError(
                f"{key}.block_out_channels: {channels} is not a multiple of {key}.norm_num_groups = {norm_num_groups}."
            )


def _twice_differentiable(autoencoder: AutoencoderKL) -> AutoencoderKL:
    # J v is the derivative of J^T u; the fused attention kernel has no second derivative, the plain processor has.
    autoencoder.set_attn_processor(AttnProcessor())
    return autoencoder
