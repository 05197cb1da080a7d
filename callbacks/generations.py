"""Memorized generations in training, at a cadence of their own."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Protocol, cast

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from ldm_privacy.metrics.memorized_generations import GenerationCopies, memorized_generations
from ldm_privacy.onset import OnsetDetector, Rise
from ldm_privacy.report import image_grid
from ldm_privacy.training.denoiser import DenoiserModule, finished_epochs
from ldm_privacy.training.device import explain_out_of_memory
from ldm_privacy.training.stepwise import log_series
from ldm_privacy.types import Image, NoisePredictor


class Generate(Protocol):
    """Images from a predictor; `progress` is called with the number done."""

    def __call__(self, predictor: NoisePredictor, *, progress: Callable[[int], None]) -> Image: ...


class MemorizedGenerations(Callback):
    """Generates images with the averaged weights and counts those that copy a member.

    The averaged weights are in the network inside audits only, so a look belongs to an audit: the first at or after each
    multiple of `every_n_epochs`, and the one after the last epoch. Where a limit stops the training, its last audit is
    such a look only if it was due anyway. The untrained denoiser is not looked at; it makes noise.

    Args:
        generate: See `Generate`; 1,000 images or more.
        images: Sample indices -> images in [-1, 1].
        member_index, heldout_index: Whom the generations are compared with: everyone that is trained on, and the others.
        every_n_epochs: Epochs between looks.
        onset: The detector.
        groups: (samples,) sample indices -> group numbers, or None.
        seed, confidence, num_bootstrap, batch_size: See `memorized_generations`.
        say: Prints a line.
        describe: Says in the progress bar what is being done; None: the usual text again.
        show: (name, picture, epoch) -> shown to the user. The generations most like a copy, each beside its nearest
            member.
    """

    num_shown = 18

    def __init__(
        self,
        generate: Generate,
        images: Callable[[Tensor], Image],
        member_index: Tensor,
        heldout_index: Tensor,
        every_n_epochs: int,
        onset: OnsetDetector,
        *,
        groups: Callable[[Tensor], Tensor | None] = lambda sample_index: None,
        seed: int = 0,
        confidence: float = 0.95,
        num_bootstrap: int = 1000,
        batch_size: int = 500,
        say: Callable[[str], None] = lambda line: None,
        describe: Callable[[str | None], None] = lambda text: None,
        show: Callable[[str, np.ndarray, int], None] = lambda name, picture, epoch: None,
    ):
        self.generate = generate
        self.images = images
        self.member_index = member_index
        self.heldout_index = heldout_index
        self.every_n_epochs = every_n_epochs
        self.onset = onset
        self.groups = groups
        self.options: dict[str, Any] = {
            "seed": seed,
            "confidence": confidence,
            "num_bootstrap": num_bootstrap,
            "batch_size": batch_size,
        }
        self.say = say
        self.describe = describe
        self.show = show
        self.rise: Rise | None = None
        self.looked_epoch = 0
        self.memorized: tuple[float, int] | None = None
        """Share of copies at the newest look, and of how many generations."""
        self._found: tuple[Image, GenerationCopies] | None = None

    def is_due(self, epoch: int, max_epochs: int | None) -> bool:
        """Whether the audit of that epoch is a look."""
        passed = epoch // self.every_n_epochs > self.looked_epoch // self.every_n_epochs
        return epoch > self.looked_epoch and (passed or epoch == max_epochs)

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: object) -> None:
        # Inside the batch hooks the averaged weights are in the network; the first batch is as good as any.
        module = cast(DenoiserModule, pl_module)
        if self._found is None and self.is_due(finished_epochs(module), trainer.max_epochs):
            self.describe("Generating images")
            with explain_out_of_memory(self._memory_advice):
                generated = self.generate(
                    module.predictor, progress=lambda done: self.describe(f"Generating images, {done:,} done")
                )
                copies = memorized_generations(
                    generated,
                    self.images,
                    self.member_index,
                    self.heldout_index,
                    groups=self.groups,
                    progress=lambda done, total: self.describe(f"Nearest images, {done:,} of {total:,} searched"),
                    **self.options,
                )
            self.describe(None)
            self._found = (generated, copies)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._found is None:
            return
        epoch = finished_epochs(cast(DenoiserModule, pl_module))
        generated, copies = self._found
        self._found = None
        self.looked_epoch = epoch
        self.memorized = (copies.memorized.value, len(generated))
        self.rise = self.onset.look(epoch, copies.rise)
        series = copies.series()
        series |= {"generations/rise": self.rise.value, "generations/rise_lower": self.rise.lower}
        if self.rise.onset_epoch is not None:
            series["generations/onset_epoch"] = float(self.rise.onset_epoch)
        log_series(trainer, "denoiser", epoch, series)
        self.say(
            f"epoch {epoch}: {100 * copies.memorized.value:.1f} % of {len(generated):,} generations copy a member, "
            f"{100 * copies.heldout.value:.1f} % a held-out image (nearest-neighbour ratio below 1/3)"
        )
        closest = copies.ratio.argsort()[: self.num_shown]
        nearest = self.images(copies.nearest_member[closest])
        pairs = torch.stack([generated.cpu()[closest], nearest.cpu()], 1).flatten(0, 1)
        self.show("most_copied", image_grid(pairs, columns=6), epoch)

    def _memory_advice(self) -> str:
        return f"while images are generated: lower audit.generations.batch_size (now {self.options['batch_size']})."

    def summary(self) -> dict[str, Any]:
        """For the run summary."""
        return {"onset_epoch_generations": self.onset.onset_epoch}

    def state_dict(self) -> dict[str, Any]:
        return {
            "onset": self.onset.state_dict(),
            "looked_epoch": self.looked_epoch,
            "memorized": None if self.memorized is None else list(self.memorized),
            "rise": None if self.rise is None else asdict(self.rise),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.onset.load_state_dict(state_dict["onset"])
        self.looked_epoch = state_dict["looked_epoch"]
        memorized = state_dict["memorized"]
        self.memorized = None if memorized is None else (memorized[0], memorized[1])
        self.rise = None if state_dict["rise"] is None else Rise(**state_dict["rise"])
