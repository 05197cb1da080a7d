"""Flux: a rectified flow over packed latents, told T5's states, CLIP's pooled one, positions, and a guidance."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ldm_privacy.errors import UserError
from ldm_privacy.models.predictor import NetworkPredictor
from ldm_privacy.models.text.encoder import HIDDEN_STATES
from ldm_privacy.models.text.towers import TowersEncoder
from ldm_privacy.registry import FAMILIES
from ldm_privacy.targets.door import Opening
from ldm_privacy.targets.family import Family, check_fit, encoder_record, flow_schedule, kl_codec, t5_tokens, tower, width_of
from ldm_privacy.targets.parts import Parts
from ldm_privacy.targets.target import Target
from ldm_privacy.types import Latent

NUM_TOKENS = 512
"""Of T5, as the pipeline has it."""
GUIDANCE = 1.0
"""Of a distilled network: what trainers recommend, since it leaves the distilled guidance as it is."""
SIZE = 128
"""Height and width of the pipeline's latents, which the transformer's settings don't say."""


@FAMILIES.register("flux")
class Flux(Family):
    """v = n - z0 at sigma. The null caption is the encoded empty string.

    A latent stays (channels, height, width) outside of the network: attacks and masks see positions, not packed tokens. Source:
    Black Forest Labs 2024, github.com/black-forest-labs/flux.
    """

    pipelines: ClassVar[tuple[str, ...]] = ("FluxPipeline",)
    denoiser: ClassVar[str] = "transformer"
    lora_pipeline: ClassVar[str | None] = "FluxPipeline"
    takes: ClassVar[tuple[str, ...]] = ("guidance", "num_tokens")

    @classmethod
    def open(cls, parts: Parts, opening: Opening) -> Target:
        num_tokens = t5_tokens(opening, NUM_TOKENS)
        parts.require(
            transformer="FluxTransformer2DModel",
            vae="AutoencoderKL",
            text_encoder="CLIPTextModel",
            text_encoder_2="T5EncoderModel",
            scheduler=None,
            tokenizer=None,
            tokenizer_2=None,
        )
        check_parts(parts)
        guidance = guidance_of(parts, opening)
        abar, kind = flow_schedule(parts)
        clip, t5 = tower(parts, ""), tower(parts, "_2", "T5EncoderModel", num_tokens)
        encoder = TowersEncoder(
            [clip, t5],
            told,
            shapes={HIDDEN_STATES: (num_tokens, t5.width), "pooled_projections": (clip.width,)},
            record={**encoder_record(parts), "num_tokens": num_tokens},
        )
        codec, transformer = kl_codec(parts), parts.network("transformer", "FluxTransformer2DModel")
        more = {
            "output": "v = n - z0, at timestep sigma",
            "fixed inputs": "no guidance" if guidance is None else f"guidance {guidance:g}",
            "T5": f"{num_tokens} tokens",
        }
        condition = "captions; the null one is the encoded empty string"
        return Target(
            codec,
            NetworkPredictor(Packed(transformer, guidance), abar, kind, time="sigma"),
            cls.facts(parts, codec, abar, kind, condition=condition, **more),
            fingerprint={**parts.hashes, "guidance": str(guidance), "num_tokens": str(num_tokens)},
            encoder=encoder,
            image_channels=3,
            resolution=SIZE * codec.factor,
            modules=parts.modules,
        )


def guidance_of(parts: Parts, opening: Opening) -> float | None:
    """What a distilled transformer is told; None for others, and UserError where it was given all the same."""
    if parts.settings("transformer").get("guidance_embeds"):
        return GUIDANCE if opening.guidance is None else opening.guidance
    if opening.guidance is not None:
        raise UserError(f"guidance: the transformer of {parts.folder} is told none (guidance_embeds: false).")
    return None


def check_parts(parts: Parts) -> None:
    """Raise UserError, before it is read, for a transformer of other widths than autoencoder and text models have."""
    check_fit(
        parts,
        "transformer",
        in_channels=(4 * width_of(parts, "vae", "latent_channels", 4), "vae, packed by 2 x 2"),
        pooled_projection_dim=(width_of(parts, "text_encoder", "hidden_size", 512), "text_encoder"),
        joint_attention_dim=(width_of(parts, "text_encoder_2", "d_model", 512), "text_encoder_2"),
    )


class Packed(nn.Module):
    """The transformer with latents as they are: it gets 2 x 2 positions as one token, with its row and column.

    Args:
        transformer: A FluxTransformer2DModel.
        guidance: That it is told; None where it is told none.
    """

    def __init__(self, transformer: nn.Module, guidance: float | None):
        super().__init__()
        self.transformer, self.guidance = transformer, guidance

    def forward(self, latent: Latent, time: Tensor, encoder_hidden_states: Tensor, pooled_projections: Tensor) -> Tensor:
        """The output, like `latent`, whose height and width must be even."""
        batch, channels, height, width = latent.shape
        if height % 2 or width % 2:
            raise UserError(f"target: latents of {height} x {width} can't be packed by 2 x 2; use images of twice that many.")
        rows, columns = height // 2, width // 2
        tokens = latent.reshape(batch, channels, rows, 2, columns, 2).permute(0, 2, 4, 1, 3, 5)
        place = torch.cartesian_prod(torch.arange(1), torch.arange(rows), torch.arange(columns)).to(latent)
        found = self.transformer(
            hidden_states=tokens.reshape(batch, rows * columns, -1),
            encoder_hidden_states=encoder_hidden_states,
            pooled_projections=pooled_projections,
            timestep=time,
            img_ids=place,
            txt_ids=place.new_zeros(encoder_hidden_states.shape[1], 3),
            guidance=None if self.guidance is None else torch.full((batch,), self.guidance, device=latent.device),
            return_dict=False,
        )[0]
        found = found.reshape(batch, rows, columns, channels, 2, 2).permute(0, 3, 1, 4, 2, 5)
        return found.reshape(batch, channels, height, width)


def told(outputs: list[Any]) -> dict[str, Tensor]:
    """The denoiser's arguments, of what the text models return."""
    clip, t5 = outputs
    return {HIDDEN_STATES: t5.last_hidden_state, "pooled_projections": clip.pooler_output}
