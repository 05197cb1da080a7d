"""Stable Diffusion 3 and 3.5: a rectified flow; a transformer that is told the states of two CLIP text models and a T5."""

from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from ldm_privacy.models.predictor import NetworkPredictor
from ldm_privacy.models.text.encoder import HIDDEN_STATES
from ldm_privacy.models.text.towers import TowersEncoder
from ldm_privacy.registry import FAMILIES
from ldm_privacy.targets.door import Opening
from ldm_privacy.targets.family import Family, check_fit, encoder_record, flow_schedule, kl_codec, t5_tokens, tower, width_of
from ldm_privacy.targets.parts import Parts
from ldm_privacy.targets.target import Target
from ldm_privacy.types import Latent

NUM_TOKENS = 256
"""Of T5, as the pipeline has it."""


@FAMILIES.register("sd3")
class SD3(Family):
    """v = n - z0 at 1000 sigma. The null caption is the encoded empty string; a T5 that is null counts as zeros.

    CLIP's hidden states before the last layer lie side by side, filled up with zeros to T5's width, and T5's follow as further
    tokens; both pooled projections lie side by side. Source: Esser et al. 2024, 2403.03206.
    """

    pipelines: ClassVar[tuple[str, ...]] = ("StableDiffusion3Pipeline",)
    denoiser: ClassVar[str] = "transformer"
    lora_pipeline: ClassVar[str | None] = "StableDiffusion3Pipeline"
    takes: ClassVar[tuple[str, ...]] = ("num_tokens",)

    @classmethod
    def open(cls, parts: Parts, opening: Opening) -> Target:
        num_tokens, has_t5 = t5_tokens(opening, NUM_TOKENS), parts.has("text_encoder_3")
        t5 = {"text_encoder_3": "T5EncoderModel", "tokenizer_3": None} if has_t5 else {}
        parts.require(
            transformer="SD3Transformer2DModel",
            vae="AutoencoderKL",
            text_encoder="CLIPTextModelWithProjection",
            text_encoder_2="CLIPTextModelWithProjection",
            scheduler=None,
            tokenizer=None,
            tokenizer_2=None,
            **t5,
        )
        check_parts(parts)
        abar, kind = flow_schedule(parts)
        clips = [tower(parts, number, "CLIPTextModelWithProjection") for number in ("", "_2")]
        towers = [*clips, tower(parts, "_3", "T5EncoderModel", num_tokens)] if has_t5 else clips
        codec, transformer = kl_codec(parts), parts.network("transformer", "SD3Transformer2DModel")
        config: Any = transformer.config
        width, pooled = config["joint_attention_dim"], config["pooled_projection_dim"]
        encoder = TowersEncoder(
            towers,
            partial(told, num_tokens=num_tokens, width=width),
            shapes={HIDDEN_STATES: (clips[0].num_tokens + num_tokens, width), "pooled_projections": (pooled,)},
            record={**encoder_record(parts), "num_tokens": num_tokens},
        )
        t5_words = f"{num_tokens} tokens" if has_t5 else f"null: zeros in place of {num_tokens} tokens"
        more = {"output": "v = n - z0, at timestep 1000 sigma", "T5": t5_words}
        condition = "captions; the null one is the encoded empty string"
        return Target(
            codec,
            NetworkPredictor(Joint(transformer), abar, kind, time="sigma_1000"),
            cls.facts(parts, codec, abar, kind, condition=condition, **more),
            fingerprint={**parts.hashes, "num_tokens": str(num_tokens)},
            encoder=encoder,
            image_channels=3,
            resolution=config["sample_size"] * codec.factor,
            modules=parts.modules,
        )


def check_parts(parts: Parts) -> None:
    """Raise UserError, before it is read, for a transformer of other widths than autoencoder and text models have."""
    latents = width_of(parts, "vae", "latent_channels", 4)
    pooled = sum(width_of(parts, part, "projection_dim", 512) for part in ("text_encoder", "text_encoder_2"))
    given = {"in_channels": (latents, "vae"), "pooled_projection_dim": (pooled, "text_encoder and text_encoder_2")}
    if parts.has("text_encoder_3"):
        given["joint_attention_dim"] = (width_of(parts, "text_encoder_3", "d_model", 512), "text_encoder_3")
    check_fit(parts, "transformer", **given)


class Joint(nn.Module):
    """The transformer with the arguments of a noise predictor.

    Args:
        transformer: An SD3Transformer2DModel.
    """

    def __init__(self, transformer: nn.Module):
        super().__init__()
        self.transformer = transformer

    def forward(self, latent: Latent, time: Tensor, encoder_hidden_states: Tensor, pooled_projections: Tensor) -> Tensor:
        """The output, like `latent`."""
        found = self.transformer(
            hidden_states=latent,
            timestep=time,
            encoder_hidden_states=encoder_hidden_states,
            pooled_projections=pooled_projections,
            return_dict=False,
        )
        return found[0]


def told(outputs: list[Any], *, num_tokens: int, width: int) -> dict[str, Tensor]:
    """The denoiser's arguments, of what the text models return; T5's, where there is one, comes last."""
    first, second, *t5 = outputs
    states = torch.cat([each.hidden_states[-2] for each in (first, second)], -1)
    further = t5[0].last_hidden_state if t5 else states.new_zeros(len(states), num_tokens, width)
    return {
        HIDDEN_STATES: torch.cat([pad(states, (0, width - states.shape[-1])), further], 1),
        "pooled_projections": torch.cat([first.text_embeds, second.text_embeds], -1),
    }
