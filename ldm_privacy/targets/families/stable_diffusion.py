"""Stable Diffusion 1 and 2: a UNet that attends to the last hidden states of one CLIP text model."""

from typing import ClassVar

from ldm_privacy.errors import UserError
from ldm_privacy.models.predictor import NetworkPredictor
from ldm_privacy.models.text.pretrained import clip_encoder
from ldm_privacy.registry import FAMILIES
from ldm_privacy.targets.door import Opening
from ldm_privacy.targets.family import Family, kl_codec
from ldm_privacy.targets.parts import Parts
from ldm_privacy.targets.target import Target

_MORE = ("addition_embed_type", "class_embed_type", "encoder_hid_dim_type", "num_class_embeds", "time_cond_proj_dim")
"""Settings of UNets that are told more than a caption."""


@FAMILIES.register("stable_diffusion")
class StableDiffusion(Family):
    """epsilon, v or sample prediction; the null caption is the encoded empty string."""

    pipelines: ClassVar[tuple[str, ...]] = ("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline")
    lora_pipeline: ClassVar[str | None] = "StableDiffusionPipeline"

    @classmethod
    def open(cls, parts: Parts, opening: Opening) -> Target:
        parts.require(
            unet="UNet2DConditionModel", vae="AutoencoderKL", text_encoder="CLIPTextModel", scheduler=None, tokenizer=None
        )
        check_unet(parts)
        abar, kind = parts.schedule()
        tokenizer, network = parts.tokenizer("tokenizer"), parts.text_model("text_encoder")
        codec, unet = kl_codec(parts), parts.network("unet", "UNet2DConditionModel")
        record = {"name": str(parts.folder / "text_encoder"), "hash": parts.hashes["text_encoder"]}
        sample_size = unet.config["sample_size"]  # type: ignore[index]
        return Target(
            codec,
            NetworkPredictor(unet, abar, kind),
            cls.facts(parts, codec, abar, kind, condition="captions; the null one is the encoded empty string"),
            fingerprint=parts.hashes,
            encoder=clip_encoder(network, tokenizer, record),
            image_channels=3,
            resolution=sample_size * codec.factor if isinstance(sample_size, int) else None,
            modules=parts.modules,
        )


def check_unet(parts: Parts) -> None:
    """Raise UserError, before it is read, for a UNet that is told more than latent and caption, or of other widths."""
    where, unet, latents = parts.folder / "unet", parts.settings("unet"), parts.settings("vae").get("latent_channels", 4)
    if more := [name for name in _MORE if unet.get(name) is not None]:
        hint = "; it may be a Stable Diffusion XL whose index lies" if unet.get("addition_embed_type") == "text_time" else ""
        raise UserError(f"{where}: has {more[0]} {unet[more[0]]}, which a {parts.kind} has no input for{hint}.")
    takes, returns = (unet.get(name, 4) for name in ("in_channels", "out_channels"))
    if takes != latents or returns != latents:
        raise UserError(
            f"{where}: takes {takes} channels and returns {returns}, but latents have {latents}; a denoiser that is given more "
            "(for inpainting 9, for edits 8, for depth 5) can't be audited."
        )
    told, said = unet.get("cross_attention_dim", 1280), parts.settings("text_encoder").get("hidden_size", 512)
    if told != said:
        raise UserError(
            f"{where}: attends to texts of width {told}, but text_encoder gives {said}; they don't belong together."
        )
