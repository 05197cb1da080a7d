"""A diffusion transformer as a denoiser, unconditional or by class: diffusers' DiTTransformer2DModel."""

from typing import Annotated

import torch
from diffusers import DiTTransformer2DModel
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from ldm_privacy.errors import UserError
from ldm_privacy.registry import DENOISERS


class DiT(DiTTransformer2DModel):
    """diffusers' transformer with the null class as the last embedding, which stands for "no class" too."""

    def forward(self, hidden_states: Tensor, timestep: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """The output, like `hidden_states`."""
        if class_labels is None:
            class_labels = torch.full_like(timestep, self.config["num_embeds_ada_norm"], dtype=torch.int64)
        return super().forward(hidden_states, timestep, class_labels, return_dict=False)[0]


@DENOISERS.register("dit")
def dit(
    *,
    latent_channels: int,
    latent_size: int,
    patch_size: PositiveInt = 2,
    width: PositiveInt = 384,
    num_layers: PositiveInt = 12,
    num_heads: PositiveInt = 6,
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    num_class_embeds: int | None = None,
) -> nn.Module:
    """(z_t, t) or (z_t, t, class_labels=(batch,)) -> output like z_t. The defaults are DiT-S/2.

    Weights are drawn as published: every block is the identity at first. Only the last layer is not 0 but small, so that the
    untrained network, from which the onset is counted, answers with numbers. Source: Peebles and Xie, 2023, arXiv 2212.09748.

    Args:
        latent_channels, latent_size: Of the latents.
        patch_size: Height and width that one token covers; UserError where it doesn't divide the latents.
        width: Of a token; UserError where it is no multiple of 4 or the heads don't divide it.
        num_layers: Transformer blocks.
        num_heads: Of every attention.
        dropout: In the blocks.
        num_class_embeds: Class embeddings, the null class as the last; None: unconditional. The condition says it.
    """
    if latent_size % patch_size:
        raise UserError(f"denoiser.network.patch_size: {patch_size} doesn't divide the latents' size, {latent_size}.")
    if width % 4:
        raise UserError(f"denoiser.network.width: {width} is not a multiple of 4, which the position embedding takes.")
    if width % num_heads:
        raise UserError(f"denoiser.network.num_heads: {num_heads} heads can't share a width of {width} evenly.")
    network = DiT(
        num_attention_heads=num_heads,
        attention_head_dim=width // num_heads,
        in_channels=latent_channels,
        num_layers=num_layers,
        dropout=dropout,
        sample_size=latent_size,
        patch_size=patch_size,
        num_embeds_ada_norm=(num_class_embeds or 1) - 1,  # one further embedding, for the null class, is diffusers' own
    )
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    patches = network.pos_embed.proj
    nn.init.xavier_uniform_(patches.weight.flatten(1))
    nn.init.zeros_(patches.bias)
    for block in network.transformer_blocks:
        told = block.norm1.emb
        told.class_embedder.dropout_prob = 0.0  # the training drops the condition, by the sample
        for weight in (
            told.class_embedder.embedding_table.weight,
            told.timestep_embedder.linear_1.weight,
            told.timestep_embedder.linear_2.weight,
        ):
            nn.init.normal_(weight, std=0.02)
        nn.init.zeros_(block.norm1.linear.weight)
    nn.init.zeros_(network.proj_out_1.weight)
    nn.init.normal_(network.proj_out_2.weight, std=0.02)
    return network
