"""Memorized generations: how many generated images copy a member, at a cadence of their own."""

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from ldm_privacy.audit.samples import AuditedSamples
from ldm_privacy.device import explain_out_of_memory, lower_memory
from ldm_privacy.metrics.memorized_generations import GenerationCopies, memorized_generations
from ldm_privacy.pictures import image_grid
from ldm_privacy.processes import is_main
from ldm_privacy.registry import WATCHERS
from ldm_privacy.targets.target import Target
from ldm_privacy.types import Condition, Image, Images, Intervals, Progress, no_progress
from ldm_privacy.watch.generated import Generated
from ldm_privacy.watch.onset import OnsetDetector
from ldm_privacy.watch.watcher import Every, GuidanceScale, Look, Moment, Watcher

NUM_SHOWN = 18


@WATCHERS.register("generations")
@dataclass(eq=False)
class Generations(Watcher):
    """Generates images in the main process and counts those that copy a member; see `memorized_generations`.

    The untrained denoiser is not looked at: it makes noise.

    Args:
        samples: Say what a latent looks like, and which conditions there are.
        images: Sample indices -> images.
        member_index, heldout_index: Whom the generations are compared with: everyone that is trained on, and the others.
        num_images: 1,000 or more.
        num_steps: DDIM steps of each.
        guidance_scale: Of the samples, against the null condition, for twice the passes; None: no guidance.
        every: See `Watcher`.
        onset: The detector.
        groups: Sample indices -> group numbers, or None.
        generated: Where the images come from; shared with other watchers that look at generated images.
        seed, intervals: Of the starting noise, and of the shares.
        progress: Shows how far a look is; see `Progress`.
        in_evaluation: Whether it looks at a checkpoint that is evaluated too, and its result counts there: a gate asks for it.

    Attributes:
        memorized: Share of copies at the newest look.
    """

    samples: AuditedSamples
    images: Images
    member_index: Tensor
    heldout_index: Tensor
    _: KW_ONLY
    num_images: Annotated[int, Field(ge=1000)] = 1000
    guidance_scale: GuidanceScale | None = None
    num_steps: PositiveInt = 20
    every: Every = Every(epochs=1)
    onset: OnsetDetector = field(default_factory=OnsetDetector)
    groups: Callable[[Tensor], Tensor | None] = lambda sample_index: None
    generated: Generated = field(default_factory=Generated)
    seed: int = 0
    intervals: Intervals = Intervals()
    progress: Progress = no_progress
    in_evaluation: bool = False
    memorized: float | None = field(default=None, init=False)
    sees_untrained: ClassVar[bool] = False

    def __post_init__(self) -> None:
        self.samples.null_row(self.guidance_scale)

    def look(self, target: Target, moment: Moment) -> Look:
        """`num_steps` denoiser passes (guided: twice as many) and a decoder pass a generation; a search among all images."""
        condition = self.samples.all_conditions()
        if not is_main():
            return Look()
        device = self.samples.latent.device
        with explain_out_of_memory(lambda: f"while images are generated: {lower_memory(device)}."):
            generated = self._generated(target, moment, condition)
            copies = self._copies(generated.to(device))
        self.memorized, self.result = copies.memorized.value, copies
        series = copies.series() | self.onset.look(self.time(moment), copies.rise).series("generations/")
        line = (
            f"{self.unit} {self.time(moment)}: {100 * copies.memorized.value:.1f} % of {len(generated):,} generations copy a "
            f"member, {100 * copies.heldout.value:.1f} % a held-out image (nearest-neighbour ratio below 1/3)"
        )
        closest = copies.ratio.argsort()[:NUM_SHOWN]
        nearest = self.images(copies.nearest_member[closest])
        pairs = torch.stack([generated[closest], nearest.cpu()], 1).flatten(0, 1)
        charts = {"copies/members": "generations/memorized", "copies/heldout": "generations/memorized_heldout"}
        return Look(series, (line,), {"most_copied": image_grid(pairs, columns=6)}, charts)

    def _generated(self, target: Target, moment: Moment, condition: Condition) -> Image:
        return self.generated(
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

    def _copies(self, generated: Image) -> GenerationCopies:
        with self.progress("Nearest images", 0) as done:
            return memorized_generations(
                generated,
                self.images,
                self.member_index,
                self.heldout_index,
                groups=self.groups,
                confidence=self.intervals.confidence,
                num_bootstrap=self.intervals.num_bootstrap,
                seed=self.intervals.seed,
                progress=done,
            )

    def passes(self) -> dict[str, int]:
        branches = 1 if self.guidance_scale is None else 2
        return {"denoiser": self.num_images * self.num_steps * branches, "decoder": self.num_images}

    def sentences(self) -> list[str]:
        """From when on generations copied members more than held-out images."""
        if self.memorized is None:
            return ["Onset of memorized generations: there was no look."]
        when = "none" if self.onset.onset_epoch is None else f"{self.unit} {self.onset.onset_epoch}"
        share = f"{100 * self.memorized:.1f} % of {self.num_images:,}"
        return [f"Onset of memorized generations: {when} ({share} at the last look)."]

    def summary(self) -> dict[str, Any]:
        return {"onset_epoch_generations": self.onset.onset_epoch}

    def state_dict(self) -> dict[str, Any]:
        return {"onset": self.onset.state_dict(), "memorized": self.memorized}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.onset.load_state_dict(state["onset"])
        self.memorized = state["memorized"]
