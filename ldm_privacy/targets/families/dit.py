"""DiT: a transformer over latents that is told a class."""

from typing import Any, ClassVar

from ldm_privacy.errors import UserError
from ldm_privacy.models.predictor import NetworkPredictor, WithoutVariance
from ldm_privacy.registry import FAMILIES
from ldm_privacy.targets.door import Opening
from ldm_privacy.targets.family import Family, check_fit, kl_codec, width_of
from ldm_privacy.targets.parts import Parts
from ldm_privacy.targets.target import Target


@FAMILIES.register("dit")
class DiT(Family):
    """epsilon; the learned variance in the second half of the channels is left out. The null class is the last embedding.

    Classes are numbered as the pipeline numbers them: those of the audited images must be the same. Source: Peebles and Xie
    2023, 2212.09748.
    """

    pipelines: ClassVar[tuple[str, ...]] = ("DiTPipeline",)
    denoiser: ClassVar[str] = "transformer"

    @classmethod
    def open(cls, parts: Parts, opening: Opening) -> Target:
        classes = ("DiTTransformer2DModel", "Transformer2DModel")
        parts.require(transformer=classes, vae="AutoencoderKL", scheduler=None)
        if (norm := parts.settings("transformer").get("norm_type", "ada_norm_zero")) != "ada_norm_zero":
            raise UserError(f"{parts.folder / 'transformer'}: has norm_type {norm}, which isn't told classes as a DiT is.")
        check_fit(parts, "transformer", in_channels=(width_of(parts, "vae", "latent_channels", 4), "vae"))
        abar, kind = parts.schedule()
        codec, transformer = kl_codec(parts), parts.network("transformer", *classes)
        config: Any = transformer.config
        num_classes = config["num_embeds_ada_norm"]
        has_variance = config["out_channels"] == 2 * config["in_channels"]
        more = {"output": f"{kind} and a variance, which is left out"} if has_variance else {}
        condition = f"{num_classes} classes; the null one is class {num_classes}"
        return Target(
            codec,
            NetworkPredictor(WithoutVariance(transformer) if has_variance else transformer, abar, kind),
            cls.facts(parts, codec, abar, kind, condition=condition, **more),
            fingerprint=parts.hashes,
            num_classes=num_classes,
            image_channels=3,
            resolution=config["sample_size"] * codec.factor,
            modules=parts.modules,
        )
