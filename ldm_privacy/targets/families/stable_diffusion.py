"""Stable Diffusion 1 and 2: a UNet that attends to the last hidden states of one CLIP text model."""

from typing import ClassVar

from diffusers import DDPMScheduler

from ldm_privacy.models.kl import KLCodec
from ldm_privacy.models.predictor import NetworkPredictor, num_parameters
from ldm_privacy.models.text.pretrained import pretrained_text_encoder
from ldm_privacy.registry import FAMILIES
from ldm_privacy.targets.door import Opening
from ldm_privacy.targets.family import Family
from ldm_privacy.targets.parts import Parts
from ldm_privacy.targets.target import Target


@FAMILIES.register("stable_diffusion")
class StableDiffusion(Family):
    """epsilon or v prediction; the null caption is the encoded empty string."""

    pipelines: ClassVar[tuple[str, ...]] = ("StableDiffusionPipeline",)
    lora_pipeline: ClassVar[str | None] = "StableDiffusionPipeline"

    @classmethod
    def open(cls, parts: Parts, opening: Opening) -> Target:
        unet = parts.network("unet", "UNet2DConditionModel")
        codec = KLCodec.scaled(parts.network("vae", "AutoencoderKL"))  # type: ignore[arg-type]
        encoder = pretrained_text_encoder(str(parts.folder), subfolder="text_encoder", tokenizer_subfolder="tokenizer")
        parts.modules["text_encoder"] = encoder.network
        schedule = DDPMScheduler.from_config(parts.settings("scheduler"))
        kind = schedule.config["prediction_type"]
        predictor = NetworkPredictor(unet, schedule.alphas_cumprod.to(parts.device), kind)
        sample_size = unet.config["sample_size"]  # type: ignore[index]
        return Target(
            codec,
            predictor,
            {
                "target": f"folder {parts.folder}, {parts.kind}",
                "latents": str(codec),
                "denoiser": f"UNet2DConditionModel, {num_parameters(unet):,} parameters, predicts {kind}",
                "condition": "captions",
            },
            fingerprint=parts.hashes,
            encoder=encoder,
            image_channels=3,
            resolution=sample_size * codec.factor if isinstance(sample_size, int) else None,
            modules=parts.modules,
        )
