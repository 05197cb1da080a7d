"""Stable Diffusion 1 and 2: a UNet that attends to the last hidden states of one CLIP text model."""

from typing import ClassVar

from ldm_privacy.models.predictor import NetworkPredictor
from ldm_privacy.models.pretrained_unet import check_told
from ldm_privacy.models.text.pretrained import clip_encoder
from ldm_privacy.registry import FAMILIES
from ldm_privacy.targets.door import Opening
from ldm_privacy.targets.family import Family, kl_codec
from ldm_privacy.targets.parts import Parts
from ldm_privacy.targets.target import Target


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
    latent_channels = parts.settings("vae").get("latent_channels", 4)
    width = parts.settings("text_encoder").get("hidden_size", 512)
    where = str(parts.folder / "unet")
    check_told(where, parts.settings("unet"), latent_channels=latent_channels, width=width, kind=parts.kind)
