"""Generated images that several watchers look at, made once."""

from weakref import WeakKeyDictionary

import torch

from ldm_privacy.audit.samples import AuditedSamples
from ldm_privacy.models.predictor import rows_per_pass
from ldm_privacy.sampling import generate_images
from ldm_privacy.targets.target import Target
from ldm_privacy.types import Condition, Image, Progress
from ldm_privacy.watch.watcher import Moment


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
