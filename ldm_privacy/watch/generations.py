"""Memorized generations: how many generated images copy a member, at a cadence of their own."""

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from ldm_privacy.metrics.memorized_generations import GenerationCopies, memorized_generations
from ldm_privacy.pictures import image_grid
from ldm_privacy.registry import WATCHERS
from ldm_privacy.targets.target import Target
from ldm_privacy.types import Image, Images, Intervals
from ldm_privacy.watch.generated import Generating
from ldm_privacy.watch.onset import OnsetDetector
from ldm_privacy.watch.watcher import Look, Moment

NUM_SHOWN = 18


@WATCHERS.register("generations")
@dataclass(eq=False)
class Generations(Generating):
    """How many generated images copy a member; see `memorized_generations`.

    The untrained denoiser is not looked at: it makes noise.

    Args:
        samples, num_steps, guidance_scale, every, generated, seed, progress: See `Generating`.
        images: Sample indices -> images.
        member_index, heldout_index: Whom the generations are compared with: everyone that is trained on, and the others.
        num_images: 1,000 or more.
        onset: The detector.
        groups: Sample indices -> group numbers, or None.
        intervals: Of the shares.
        in_evaluation: Whether it looks at a checkpoint that is evaluated too, and its result counts there: a gate asks for it.

    Attributes:
        memorized: Share of copies at the newest look.
    """

    images: Images
    member_index: Tensor
    heldout_index: Tensor
    _: KW_ONLY
    num_images: Annotated[int, Field(ge=1000)] = 1000
    onset: OnsetDetector = field(default_factory=OnsetDetector)
    groups: Callable[[Tensor], Tensor | None] = lambda sample_index: None
    intervals: Intervals = Intervals()
    in_evaluation: bool = False
    memorized: float | None = field(default=None, init=False)
    sees_untrained: ClassVar[bool] = False

    def look_at(self, generated: Image, target: Target, moment: Moment) -> Look:
        """With a search among all images for those nearest to each generation."""
        copies = self._copies(generated.to(self.samples.latent.device))
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
