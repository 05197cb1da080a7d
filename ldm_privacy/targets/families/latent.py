"""Unconditional latent diffusion: a UNet over the latents of a VQ or a KL autoencoder."""

from typing import Any, ClassVar

from ldm_privacy.models.kl import KLCodec
from ldm_privacy.models.vq import VQCodec
from ldm_privacy.registry import FAMILIES
from ldm_privacy.targets.door import Opening
from ldm_privacy.targets.families.ddpm import Unconditional
from ldm_privacy.targets.family import check_fit, kl_codec, width_of
from ldm_privacy.targets.parts import Parts
from ldm_privacy.targets.target import Target


@FAMILIES.register("latent")
class LatentDiffusion(Unconditional):
    """epsilon of latents before quantisation, as they are trained. Source: Rombach et al. 2022, 2112.10752."""

    pipelines: ClassVar[tuple[str, ...]] = ("LDMPipeline",)

    @classmethod
    def open(cls, parts: Parts, opening: Opening) -> Target:
        parts.require(unet="UNet2DModel", vqvae=("VQModel", "AutoencoderKL"), scheduler=None)
        settings = parts.settings("vqvae")
        is_vq = parts.class_of("vqvae") == "VQModel"
        channels = width_of(parts, "vqvae", "latent_channels", 3 if is_vq else 4)
        check_fit(parts, "unet", in_channels=(width_of(parts, "vqvae", "vq_embed_dim", channels), "vqvae"))
        codec: KLCodec | VQCodec
        codec = VQCodec(parts.network("vqvae", "VQModel")) if is_vq else kl_codec(parts, "vqvae")  # type: ignore[arg-type]
        config: Any = codec.network.config
        if "scaling_factor" not in settings:
            parts.notes.append(f"vqvae: scaling_factor {config['scaling_factor']}, the default of its class, as none is stored")
        return cls.target(parts, codec, cls.unet(parts), image_channels=config["in_channels"], factor=codec.factor)
