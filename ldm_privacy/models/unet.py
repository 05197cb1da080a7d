"""diffusers' UNet2DModel as a denoiser, unconditional or by class."""

from collections.abc import Sequence
from typing import Annotated

from diffusers import UNet2DModel
from pydantic import Field, PositiveInt
from torch import nn

from ldm_privacy.errors import UserError
from ldm_privacy.models.weights import Channels, check_groups
from ldm_privacy.registry import DENOISERS


@DENOISERS.register("unet")
def unet(
    *,
    latent_channels: int,
    latent_size: int,
    block_out_channels: Channels = (128, 256, 256, 256),
    layers_per_block: PositiveInt = 2,
    attention: Sequence[bool] | None = None,
    mid_block_attention: bool = False,
    head_channels: PositiveInt | None = 8,
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    norm_num_groups: PositiveInt = 32,
    num_class_embeds: int | None = None,
) -> nn.Module:
    """(z_t, t) or (z_t, t, class_labels=(batch,)) -> output like z_t.

    Args:
        latent_channels, latent_size: Of the latents.
        block_out_channels: Channels per resolution, finest first; each block after the first halves height and width.
            UserError where the latents can't be halved that often, or the groups don't divide the channels.
        layers_per_block: Residual blocks per resolution.
        attention: Which blocks have self-attention; none by default.
        mid_block_attention: Self-attention at the coarsest resolution.
        head_channels: Of each head of self-attention; None: one head, of all channels, as in Ho et al. 2020, 2006.11239.
            UserError where they don't divide the channels of a block that attends.
        dropout: In the residual blocks.
        norm_num_groups: Groups of every group normalisation.
        num_class_embeds: Class embeddings, the null class among them; None: unconditional. The condition says it.
    """
    attention = blocks_of(latent_size, block_out_channels, norm_num_groups, attention, attends=False)
    check_heads("head_channels", head_channels or 1, block_out_channels, attention, middle=mid_block_attention)
    return UNet2DModel(
        sample_size=latent_size,
        in_channels=latent_channels,
        out_channels=latent_channels,
        block_out_channels=tuple(block_out_channels),
        layers_per_block=layers_per_block,
        down_block_types=tuple("AttnDownBlock2D" if attend else "DownBlock2D" for attend in attention),
        up_block_types=tuple("AttnUpBlock2D" if attend else "UpBlock2D" for attend in reversed(attention)),
        add_attention=mid_block_attention,
        attention_head_dim=head_channels,
        dropout=dropout,
        norm_num_groups=norm_num_groups,
        num_class_embeds=num_class_embeds,
    )


def blocks_of(
    latent_size: int,
    block_out_channels: Sequence[int],
    norm_num_groups: int,
    attention: Sequence[bool] | None,
    *,
    attends: bool,
) -> Sequence[bool]:
    """Which blocks have attention: as asked, or all as `attends` says. Raises UserError where such blocks can't be."""
    check_groups("denoiser.network", block_out_channels, norm_num_groups)
    num_blocks = len(block_out_channels)
    if latent_size % 2 ** (num_blocks - 1):
        raise UserError(
            f"denoiser.network.block_out_channels: {list(block_out_channels)} halves the latent {num_blocks - 1} "
            f"times, but its size is {latent_size}. Use fewer blocks or a larger data.resolution."
        )
    attention = attention or [attends] * num_blocks
    if len(attention) != num_blocks:
        raise UserError(f"denoiser.network.attention: {len(attention)} entries for {num_blocks} block_out_channels.")
    return attention


def check_heads(key: str, number: int, block_out_channels: Sequence[int], attention: Sequence[bool], *, middle: bool) -> None:
    """Raise UserError where attention can't share the channels of its blocks, or of the `middle`, by that number."""
    attends = [*zip(block_out_channels, attention), (block_out_channels[-1], middle)]
    if wrong := sorted(channels for channels, has in attends if has and channels % number):
        raise UserError(f"denoiser.network.{key}: {number} doesn't divide {wrong[0]} of block_out_channels, which attends.")
