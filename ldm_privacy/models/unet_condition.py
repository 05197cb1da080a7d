"""diffusers' UNet2DConditionModel as a denoiser: Stable Diffusion's kind, which attends to the words of a caption."""

from collections.abc import Sequence
from typing import Annotated

from diffusers import UNet2DConditionModel
from pydantic import Field, PositiveInt
from torch import nn

from ldm_privacy.errors import UserError
from ldm_privacy.models.unet import blocks_of, check_heads
from ldm_privacy.models.weights import Channels
from ldm_privacy.registry import DENOISERS


@DENOISERS.register("unet_condition")
def unet_condition(
    *,
    latent_channels: int,
    latent_size: int,
    block_out_channels: Channels = (128, 256, 256, 256),
    layers_per_block: PositiveInt = 2,
    attention: Sequence[bool] | None = None,
    num_heads: PositiveInt = 8,
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    norm_num_groups: PositiveInt = 32,
    cross_attention_dim: int | None = None,
) -> nn.Module:
    """(z_t, t, encoder_hidden_states=(batch, tokens, width)) -> output like z_t.

    Args:
        latent_channels, latent_size: Of the latents.
        block_out_channels: Channels per resolution, finest first; each block after the first halves height and width.
            UserError where the latents can't be halved that often, or the groups don't divide the channels.
        layers_per_block: Residual blocks per resolution.
        attention: Which blocks attend to the caption and to themselves; all by default. The middle always does.
        num_heads: Of every attention; UserError where they don't divide the channels. (diffusers calls this number
            `attention_head_dim`.)
        dropout: In the residual blocks.
        norm_num_groups: Groups of every group normalisation.
        cross_attention_dim: Width of the caption's embedding. The condition says it; UserError where none does.
    """
    if cross_attention_dim is None:
        raise UserError(
            "denoiser.network: 'unet_condition' attends to captions: set denoiser.condition=captions, or take the class 'unet'."
        )
    attention = blocks_of(latent_size, block_out_channels, norm_num_groups, attention, attends=True)
    check_heads("num_heads", num_heads, block_out_channels, attention, middle=True)
    return UNet2DConditionModel(
        sample_size=latent_size,
        in_channels=latent_channels,
        out_channels=latent_channels,
        block_out_channels=tuple(block_out_channels),
        layers_per_block=layers_per_block,
        down_block_types=tuple("CrossAttnDownBlock2D" if attend else "DownBlock2D" for attend in attention),
        up_block_types=tuple("CrossAttnUpBlock2D" if attend else "UpBlock2D" for attend in reversed(attention)),
        attention_head_dim=num_heads,
        dropout=dropout,
        norm_num_groups=norm_num_groups,
        cross_attention_dim=cross_attention_dim,
    )
