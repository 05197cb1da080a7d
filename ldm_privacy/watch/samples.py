"""Generated images, the same starting noise at every look: a picture growing up over the epochs."""

from dataclasses import KW_ONLY, dataclass

from pydantic import PositiveInt

from ldm_privacy.audit.samples import AuditedSamples
from ldm_privacy.models.predictor import rows_per_pass
from ldm_privacy.pictures import image_grid
from ldm_privacy.processes import is_main
from ldm_privacy.registry import WATCHERS
from ldm_privacy.sampling import generate_images
from ldm_privacy.targets.target import Target
from ldm_privacy.watch.watcher import Every, GuidanceScale, Look, Moment, Watcher


@WATCHERS.register("samples")
@dataclass(eq=False)
class Samples(Watcher):
    """A grid of generated images, in the main process.

    Args:
        samples: Say what a latent looks like, and which conditions there are.
        num_images: At least 1.
        num_steps: DDIM steps of each.
        guidance_scale: Of the samples, against the null condition, for twice the passes; None: no guidance.
        every: See `Watcher`.
        seed: Of the starting noise.
    """

    samples: AuditedSamples
    _: KW_ONLY
    num_images: PositiveInt = 16
    guidance_scale: GuidanceScale | None = None
    num_steps: PositiveInt = 50
    every: Every = Every(epochs=1)
    seed: int = 0

    def __post_init__(self) -> None:
        self.samples.null_row(self.guidance_scale)

    def look(self, target: Target, moment: Moment) -> Look:
        """`num_steps` denoiser passes (guided: twice as many) and a decoder pass an image."""
        condition = self.samples.all_conditions()
        if not is_main():
            return Look()
        images = generate_images(
            target.predictor,
            target.codec.decode,
            self.samples.latent.shape[1:],
            num_images=self.num_images,
            num_steps=self.num_steps,
            condition=condition,
            null=self.samples.null_row(self.guidance_scale),
            guidance_scale=self.guidance_scale,
            seed=self.seed,
            batch_size=rows_per_pass(target.predictor, self.samples.latent),
            device=self.samples.latent.device,
        )
        return Look(pictures={"samples": image_grid(images)})

    def passes(self) -> dict[str, int]:
        branches = 1 if self.guidance_scale is None else 2
        return {"denoiser": self.num_images * self.num_steps * branches, "decoder": self.num_images}
