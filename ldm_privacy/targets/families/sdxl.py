"""Stable Diffusion XL: a UNet that is told the states of two CLIP text models, a pooled one, and the size of the picture."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ldm_privacy.errors import UserError
from ldm_privacy.models.predictor import NetworkPredictor
from ldm_privacy.models.text.encoder import HIDDEN_STATES
from ldm_privacy.models.text.towers import TextTower, TowersEncoder
from ldm_privacy.registry import FAMILIES
from ldm_privacy.targets.door import Opening
from ldm_privacy.targets.family import Family, check_fit, encoder_record, kl_codec, tower, width_of
from ldm_privacy.targets.parts import INDEX, Parts
from ldm_privacy.targets.target import Target
from ldm_privacy.types import Latent

_MORE = ("class_embed_type", "encoder_hid_dim_type", "num_class_embeds", "time_cond_proj_dim")
"""Settings of UNets that are told more."""


@FAMILIES.register("sdxl")
class SDXL(Family):
    """Hidden states before the last layer of both text models, side by side; pooled from the second.

    The null caption is zeros or the encoded empty string, as `force_zeros_for_empty_prompt` of the pipeline says. That is what
    it samples with; trainers may have dropped captions to the other. Source: Podell et al. 2023, 2307.01952.
    """

    pipelines: ClassVar[tuple[str, ...]] = ("StableDiffusionXLPipeline",)
    lora_pipeline: ClassVar[str | None] = "StableDiffusionXLPipeline"

    @classmethod
    def open(cls, parts: Parts, opening: Opening) -> Target:
        has_first = parts.has("text_encoder")
        first = {"text_encoder": "CLIPTextModel", "tokenizer": None} if has_first else {}
        parts.require(
            unet="UNet2DConditionModel",
            vae="AutoencoderKL",
            text_encoder_2="CLIPTextModelWithProjection",
            scheduler=None,
            tokenizer_2=None,
            **first,
        )
        check_parts(parts)
        abar, kind = parts.schedule()
        towers = [tower(parts, "")] if has_first else []
        towers.append(tower(parts, "_2", "CLIPTextModelWithProjection"))
        encoder = encoder_of(towers, encoder_record(parts), bool(parts.index.get("force_zeros_for_empty_prompt", True)))
        codec, unet = kl_codec(parts), parts.network("unet", "UNet2DConditionModel")
        null = "zeros (force_zeros_for_empty_prompt)" if encoder.empty_is_zero else "the encoded empty string"
        more = {"fixed inputs": "time_ids: the image's own size as original and target size, not cropped"}
        size = unet.config["sample_size"]  # type: ignore[index]
        return Target(
            codec,
            NetworkPredictor(Sized(unet, codec.factor), abar, kind),
            cls.facts(parts, codec, abar, kind, condition=f"captions; the null one is {null}", **more),
            fingerprint=parts.hashes,
            encoder=encoder,
            image_channels=3,
            resolution=size * codec.factor if isinstance(size, int) else None,
            modules=parts.modules,
        )


def check_parts(parts: Parts) -> None:
    """Raise UserError, before it is read, for a UNet that is told other things than a Stable Diffusion XL's."""
    unet, pooled = parts.settings("unet"), width_of(parts, "text_encoder_2", "projection_dim", 512)
    if (kind := unet.get("addition_embed_type")) != "text_time":
        raise UserError(
            f"{parts.folder / 'unet'}: has addition_embed_type {kind}, so it is told no sizes and no pooled text, as a "
            f"{parts.kind}'s is; it may be a Stable Diffusion whose index lies."
        )
    if more := [name for name in _MORE if unet.get(name) is not None]:
        raise UserError(f"{parts.folder / 'unet'}: has {more[0]} {unet[more[0]]}, which a {parts.kind} has no input for.")
    if parts.index.get("requires_aesthetics_score"):
        raise UserError(f"{parts.folder / INDEX}: a refiner, which is told an aesthetic score, can't be audited.")
    latents, sizes = width_of(parts, "vae", "latent_channels", 4), width_of(parts, "unet", "addition_time_embed_dim", 1)
    texts = [part for part in ("text_encoder", "text_encoder_2") if parts.has(part)]
    check_fit(
        parts,
        "unet",
        in_channels=(latents, "vae"),
        out_channels=(latents, "vae"),
        cross_attention_dim=(sum(width_of(parts, part, "hidden_size", 512) for part in texts), " and ".join(texts)),
        projection_class_embeddings_input_dim=(pooled + 6 * sizes, "text_encoder_2"),
    )


class Sized(nn.Module):
    """The UNet, told that the image was neither scaled nor cropped.

    Args:
        unet: A UNet2DConditionModel with `addition_embed_type: text_time`.
        factor: Of the latents' height and width to the images'.
    """

    def __init__(self, unet: nn.Module, factor: int):
        super().__init__()
        self.unet, self.factor = unet, factor

    def forward(self, latent: Latent, timestep: Tensor, encoder_hidden_states: Tensor, text_embeds: Tensor) -> Tensor:
        """The output, like `latent`."""
        height, width = (self.factor * side for side in latent.shape[-2:])
        sizes = torch.tensor([[height, width, 0, 0, height, width]], dtype=torch.float32, device=latent.device)
        added = {"text_embeds": text_embeds, "time_ids": sizes.expand(len(latent), -1)}
        return self.unet(latent, timestep, encoder_hidden_states, added_cond_kwargs=added, return_dict=False)[0]


def encoder_of(towers: list[TextTower], record: dict[str, Any], empty_is_zero: bool) -> TowersEncoder:
    """Of the two CLIP text models; of the second alone where the first is null, as the pipeline allows."""
    last: Any = towers[-1].network.config
    if len({each.num_tokens for each in towers}) > 1:
        lengths = " and ".join(str(each.num_tokens) for each in towers)
        raise UserError(f"{record['name']}: its text models read {lengths} tokens, and must read as many.")
    shapes = {
        HIDDEN_STATES: (towers[-1].num_tokens, sum(each.width for each in towers)),
        "text_embeds": (last.projection_dim,),
    }
    return TowersEncoder(towers, told, shapes=shapes, record=record, empty_is_zero=empty_is_zero)


def told(outputs: list[Any]) -> dict[str, Tensor]:
    """The denoiser's arguments, of what the text models return."""
    return {
        HIDDEN_STATES: torch.cat([each.hidden_states[-2] for each in outputs], -1),
        "text_embeds": outputs[-1].text_embeds,
    }
