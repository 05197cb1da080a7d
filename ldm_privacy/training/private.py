"""Stage 2 under differential privacy: DP-SGD (Abadi et al. 2016, 1607.00133, algorithm 1) through Opacus."""

from typing import Any

import torch
from torch import Tensor

from ldm_privacy.device import passes, rows_within
from ldm_privacy.randomness import derive_seed
from ldm_privacy.targets.privacy import Privacy
from ldm_privacy.training.denoiser import DenoiserModule
from ldm_privacy.training.per_sample import epsilon, importing_opacus, per_sample_hooks
from ldm_privacy.training.stepwise import log_series


class PrivateDenoiserModule(DenoiserModule):
    """Trains a denoiser so that its weights owe little to any one member.

    Each member is in a step with probability batch_size / members, independently (Poisson sampling, which the accountant
    counts on); its gradient is clipped to a norm, normal noise is added to their sum, and AdamW takes that, divided by
    batch_size. Batch and noise are functions of (seed, epoch, step), as all that is random here, so a training that stops goes
    on exactly; and who knows the seed can take the noise out.

    Gradients by sample take memory: 8 bytes a weight and sample. As many samples go through the network together as fit the
    budget of `limit_memory`. Float32, one process, not compiled.

    Args:
        arguments, options: Of `DenoiserModule`.
        privacy: The noise, the norm and delta; `sample_rate` is batch_size / members.
    """

    def __init__(self, *arguments: Any, privacy: Privacy, **options: Any):
        super().__init__(*arguments, **options)
        self.privacy = privacy
        self._hooks: Any = None
        self._noise: torch.Generator | None = None
        self._part = 0

    @property
    def reached(self) -> Privacy:
        """What is guaranteed now."""
        steps = self.trainer.global_step
        return self.privacy.after(steps, epsilon(self.privacy, steps))

    def on_fit_start(self) -> None:
        super().on_fit_start()
        # Not before: a copy of the network, whose weights are an average, is made without them.
        self._hooks = per_sample_hooks(self.network)
        self._hooks.disable_hooks()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        with importing_opacus():
            from opacus.optimizers import DPOptimizer

        self._noise = torch.Generator(self.device)
        return DPOptimizer(
            super().configure_optimizers(),
            noise_multiplier=self.privacy.noise_multiplier,
            max_grad_norm=self.privacy.max_gradient_norm,
            expected_batch_size=self.privacy.sample_rate * self.num_samples,  # type: ignore[arg-type]
            generator=self._noise,
        )

    def configure_gradient_clipping(self, *arguments: Any, **options: Any) -> None:
        """Each sample's gradient is clipped; the noisy sum is not."""

    def batch_indices(self, epoch: int, step: int) -> Tensor:
        """Places of the samples of one step: each with probability `sample_rate`; there may be none."""
        generator = torch.Generator().manual_seed(derive_seed("denoiser-poisson", self.seed, epoch, step))
        drawn = torch.rand(self.num_samples, dtype=torch.float64, generator=generator) < self.privacy.sample_rate
        return drawn.nonzero().flatten().to(self.device)

    def training_step(self, step: int, batch_idx: int) -> Tensor:
        epoch = self.current_epoch
        drawn = self.batch_indices(epoch, batch_idx)
        # Where nobody was drawn, one sample is computed that counts for nothing: the noise is added all the same.
        indices = drawn if len(drawn) else torch.zeros(1, dtype=torch.int64, device=self.device)
        assert self._noise is not None
        self._noise.manual_seed(derive_seed("denoiser-private-noise", self.seed, epoch, batch_idx))
        weights = sum(parameter.numel() for parameter in self.network.parameters())
        parts = passes(len(indices), rows_within(8 * weights, self.device))
        (optimizer,) = self.trainer.optimizers
        self._hooks.enable_hooks()
        means: dict[str, Any] = {}
        for part, rows in enumerate(parts):
            torch.manual_seed(derive_seed("denoiser-step", self.seed, epoch, batch_idx))
            self._share, self._part = rows, part
            losses = self.loss(indices)
            if part < len(parts) - 1:  # its clipped gradients are added up, those by sample forgotten
                losses["loss"].backward()
                optimizer.signal_skip_step()  # type: ignore[attr-defined]
                optimizer.pre_step()  # type: ignore[attr-defined]
                optimizer.zero_grad()
            for name, value in losses.items():
                means[name] = means.get(name, 0) + value.detach() * (rows.stop - rows.start) / len(indices)
        if len(drawn):
            self.note(means, 1.0)
        return losses["loss"] if len(drawn) else 0.0 * losses["loss"]

    def draw_apart(self) -> None:
        """From here on the step's random numbers (dropout) differ between the parts of a step."""
        if self._part:
            torch.manual_seed(derive_seed("denoiser-step-apart", torch.initial_seed(), self._part))

    def on_after_backward(self) -> None:
        self._hooks.disable_hooks()  # a look may ask for gradients of its own

    def on_train_epoch_end(self) -> None:
        super().on_train_epoch_end()
        log_series(self.trainer, self.stage, self.current_epoch + 1, {"denoiser/epsilon": self.reached.epsilon})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["privacy"] = self.reached.record()

    def teardown(self, stage: str) -> None:
        if self._hooks is not None:
            self._hooks.cleanup()
