"""Pipelines in pixel space: a UNet of whole images, unconditional."""

from typing import Any, ClassVar

from torch import nn

from ldm_privacy.errors import UserError
from ldm_privacy.models.codec import Codec
from ldm_privacy.models.identity import IdentityCodec
from ldm_privacy.models.predictor import NetworkPredictor, WithoutVariance
from ldm_privacy.registry import FAMILIES
from ldm_privacy.targets.door import Opening
from ldm_privacy.targets.family import Family
from ldm_privacy.targets.parts import Parts
from ldm_privacy.targets.target import Target


class Unconditional(Family):
    """A UNet2DModel that is told the timestep alone, in pixels or latents."""

    @classmethod
    def unet(cls, parts: Parts) -> nn.Module:
        """Its UNet. Raises UserError, before it is read, where it wants to be told more."""
        settings, where = parts.settings("unet"), parts.folder / "unet"
        if any(settings.get(name) is not None for name in ("class_embed_type", "num_class_embeds")):
            raise UserError(f"{where}: wants to be told classes, and a {parts.kind} tells none.")
        if settings.get("time_embedding_type", "positional") != "positional":
            kind = settings["time_embedding_type"]
            raise UserError(f"{where}: has time_embedding_type {kind}: it is told no timestep, and can't be audited.")
        return parts.network("unet", "UNet2DModel")

    @classmethod
    def target(cls, parts: Parts, codec: Codec, unet: nn.Module, *, image_channels: int, factor: int) -> Target:
        """All of it; `factor`: of the latents' height and width to the images'."""
        config: Any = unet.config
        abar, kind = parts.schedule()
        has_variance = config["out_channels"] == 2 * config["in_channels"]
        more = {"output": f"{kind} and a variance, which is left out"} if has_variance else {}
        size = config["sample_size"]
        return Target(
            codec,
            NetworkPredictor(WithoutVariance(unet) if has_variance else unet, abar, kind),
            cls.facts(parts, codec, abar, kind, condition="none", **more),
            fingerprint=parts.hashes,
            image_channels=image_channels,
            resolution=size * factor if isinstance(size, int) else None,
            modules=parts.modules,
        )


@FAMILIES.register("ddpm")
class DDPM(Unconditional):
    """epsilon, v or the clean image, as the scheduler says; a variance that the network learned too is left out.

    Source: Ho et al. 2020, 2006.11239; Nichol and Dhariwal 2021, 2102.09672.
    """

    pipelines: ClassVar[tuple[str, ...]] = ("DDPMPipeline", "DDIMPipeline", "PNDMPipeline")

    @classmethod
    def open(cls, parts: Parts, opening: Opening) -> Target:
        parts.require(unet="UNet2DModel", scheduler=None)
        unet = cls.unet(parts)
        config: Any = unet.config
        channels = config["in_channels"]
        codec = IdentityCodec(image_channels=channels).to(parts.device)
        return cls.target(parts, codec, unet, image_channels=channels, factor=1)
