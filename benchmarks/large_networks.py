"""Networks of the shapes that people have, from Stable Diffusion's down, with random weights."""

from typing import Any

from torch import Tensor, nn

WIDTHS = {"sd": (128, 256, 512, 512), "cifar": (128, 128, 256), "tiny": (32, 64)}
"""Of the autoencoders; sd is Stable Diffusion's."""


def codec_of(kind: str) -> Any:
    """A KL codec of those widths."""
    from diffusers import AutoencoderKL

    from ldm_privacy.models.kl import KLCodec

    count = len(WIDTHS[kind])
    return KLCodec.scaled(
        AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * count,
            up_block_types=("UpDecoderBlock2D",) * count,
            block_out_channels=WIDTHS[kind],
            layers_per_block=2 if kind == "sd" else 1,
            mid_block_add_attention=kind == "sd",
        )
    )


def sdxl(widths: tuple[int, ...], side: int) -> tuple[nn.Module, dict[str, tuple[int, ...]]]:
    """The blocks of Stable Diffusion XL, and what it is told."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=side,
        block_out_channels=widths,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 10),
        attention_head_dim=tuple(max(2, width // 64) for width in widths),
        cross_attention_dim=64,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 32,
        use_linear_projection=True,
    ), {"encoder_hidden_states": (77, 64), "text_embeds": (32,), "time_ids": (6,)}


class Told(nn.Module):
    """SDXL's network with its added conditions as plain keyword arguments."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network, self.config = network, network.config

    def forward(self, latent: Tensor, timestep: Tensor, encoder_hidden_states: Tensor, **added: Tensor) -> Tensor:
        return self.network(latent, timestep, encoder_hidden_states, added_cond_kwargs=added).sample


def denoiser_of(kind: str, side: int) -> tuple[nn.Module, int, dict[str, tuple[int, ...]]]:
    """A denoiser, its input's channels, and what it is told: name -> shape of one sample's."""
    from diffusers import DiTTransformer2DModel, UNet2DConditionModel, UNet2DModel

    if kind == "sd1":
        told = {"encoder_hidden_states": (77, 768)}
        return UNet2DConditionModel(sample_size=side, cross_attention_dim=768, attention_head_dim=8), 4, told
    if kind == "sdxl-narrow":
        network, told = sdxl((32, 64, 128), side)
        return Told(network), 4, told
    if kind == "dit":
        return DiTTransformer2DModel(num_attention_heads=16, attention_head_dim=72, num_layers=4, sample_size=side), 4, {}
    widths = {"ddpm": (128, 256, 256, 256), "unet": (128, 256, 256), "unet-narrow": (32, 64)}[kind]
    attended, last = "AttnDownBlock2D", len(widths) - 1
    blocks = ["DownBlock2D", *[attended] * last] if kind != "ddpm" else ["DownBlock2D", attended, *["DownBlock2D"] * 2]
    channels = 3 if kind == "ddpm" else 4
    return (
        UNet2DModel(
            sample_size=side,
            in_channels=channels,
            out_channels=channels,
            block_out_channels=widths,
            down_block_types=tuple(blocks),
            up_block_types=tuple(block.replace("Down", "Up") for block in reversed(blocks)),
        ),
        channels,
        {},
    )
