"""Generated images that several watchers look at, made once, and what such watchers have in common."""

from dataclasses import KW_ONLY, dataclass, field
from weakref import WeakKeyDictionary

import torch
from pydantic import PositiveInt

from ldm_privacy.audit.samples import AuditedSamples
from ldm_privacy.device import explain_out_of_memory, lower_memory
from ldm_privacy.models.predictor import rows_per_pass
from ldm_privacy.processes import is_main
from ldm_privacy.sampling import generate_images
from ldm_privacy.targets.target import Target
from ldm_privacy.types import Condition, Image, Progress, no_progress
from ldm_privacy.watch.watcher import Every, GuidanceScale, Look, Moment, Watcher


class Generated:
    """Remembers what was generated of a target at its newest moment, for as long as somebody else holds the target.

    Watchers that share one and ask for images of the same kind get the same ones: who asks for fewer the first of them, who
    asks for more these and as many as are missing.
    """

    def __init__(self) -> None:
        self._made: WeakKeyDictionary[Target, tuple[Moment, dict[tuple[object, ...], Image]]] = WeakKeyDictionary()

    def __call__(
        self,
        target: Target,
        moment: Moment,
        samples: AuditedSamples,
        condition: Condition,
        *,
        num_images: int,
        num_steps: int,
        guidance_scale: float | None,
        seed: int,
        progress: Progress,
    ) -> Image:
        """See `generate_images`; the samples say what a latent looks like and what is guided against."""
        when, images = self._made.get(target, (moment, {}))
        if when != moment:
            images = {}
        self._made[target] = moment, images
        kind = num_steps, guidance_scale, seed
        made = images.get(kind)
        first = 0 if made is None else len(made)
        if first < num_images:
            with progress("Generating images", num_images - first) as done:
                more = generate_images(
                    target.predictor,
                    target.codec.decode,
                    samples.latent.shape[1:],
                    num_images=num_images - first,
                    first=first,
                    num_steps=num_steps,
                    condition=condition,
                    null=samples.null_row(guidance_scale),
                    guidance_scale=guidance_scale,
                    seed=seed,
                    batch_size=rows_per_pass(target.predictor, samples.latent),
                    device=samples.latent.device,
                    progress=done,
                )
            images[kind] = more if made is None else torch.cat([made, more])
        return images[kind][:num_images]


@dataclass(eq=False)
class Generating(Watcher):
    """A watcher of generated images, which are made in the main process. A subclass writes `look_at`.

    Args:
        samples: Say what a latent looks like, and which conditions there are.
        num_images: Generations.
        num_steps: DDIM steps of each.
        guidance_scale: Of the generations, against the null condition, for twice the passes; None: no guidance.
        every: See `Watcher`.
        generated: Where the images come from; shared with other watchers that look at generated images.
        seed: Of the starting noise.
        progress: Shows how far a look is; see `Progress`.

    Raises:
        UserError: Guidance without a condition.
    """

    samples: AuditedSamples
    _: KW_ONLY
    num_images: PositiveInt = 1000
    guidance_scale: GuidanceScale | None = None
    num_steps: PositiveInt = 20
    every: Every = Every(epochs=1)
    generated: Generated = field(default_factory=Generated)
    seed: int = 0
    progress: Progress = no_progress

    def __post_init__(self) -> None:
        self.samples.null_row(self.guidance_scale)

    def look(self, target: Target, moment: Moment) -> Look:
        """See `passes` and `look_at`."""
        condition = self.samples.all_conditions()
        if not is_main():
            return Look()
        device = self.samples.latent.device
        with explain_out_of_memory(lambda: f"while images are generated: {lower_memory(device)}."):
            images = self.generated(
                target,
                moment,
                self.samples,
                condition,
                num_images=self.num_images,
                num_steps=self.num_steps,
                guidance_scale=self.guidance_scale,
                seed=self.seed,
                progress=self.progress,
            )
            return self.look_at(images, target, moment)

    def look_at(self, generated: Image, target: Target, moment: Moment) -> Look:
        """What is seen in the images, (num_images, image_channels, height, width), on the CPU; the main process calls it."""
        raise NotImplementedError

    def passes(self) -> dict[str, int]:
        """Of a look by itself: images that another watcher has made at that moment cost nothing."""
        branches = 1 if self.guidance_scale is None else 2
        return {"denoiser": self.num_images * self.num_steps * branches, "decoder": self.num_images}
