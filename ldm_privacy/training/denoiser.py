"""Stage 2: the latent denoiser."""

from collections.abc import Iterator

import torch
from diffusers import DDPMScheduler
from torch import Tensor, nn

from ldm_privacy.attacks.runner import DEFAULT_MEMORY_BUDGET
from ldm_privacy.diffusion import PredictionType, add_noise, training_target
from ldm_privacy.models.denoiser import NetworkPredictor
from ldm_privacy.randomness import normal, uniform
from ldm_privacy.training.stepwise import CompileMode, StepwiseModule
from ldm_privacy.types import AuditBatch, Latent, Timestep


class AuditLoader:
    """The audited samples in batches, in the order given; iterates anew each time."""

    def __init__(self, samples: AuditBatch, batch_size: int):
        self.samples = samples
        self.batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self.samples.sample_index) // self.batch_size)

    def __iter__(self) -> Iterator[AuditBatch]:
        for start in range(0, len(self.samples.sample_index), self.batch_size):
            yield self.samples.rows(slice(start, start + self.batch_size))


class DenoiserModule(StepwiseModule):
    """Trains a denoiser on cached latents and measures its loss on members and held-out samples.

    loss = mean squared error between output and target at a uniform timestep (Ho et al. 2020, 2006.11239, eq. 14).

    Args:
        network: (z_t, t) -> output like z_t.
        scheduler: Carries alphas_cumprod and the prediction type.
        latents: (variants, samples, channels, height, width): the members' latents; variant 1, where it exists, is the
            mirrored image's. A variant is drawn for each sample and step.
        audited: Samples of the validation loop (the audit): members and held-out.
        audit_batch_size: Samples per validation batch.
        batch_size, learning_rate, weight_decay, seed, warmup_steps, compile_mode, channels_last: See `StepwiseModule`.
    """

    num_loss_timesteps = 4

    def __init__(
        self,
        network: nn.Module,
        scheduler: DDPMScheduler,
        latents: Tensor,
        audited: AuditBatch,
        *,
        audit_batch_size: int = 512,
        batch_size: int = 128,
        learning_rate: float = 2e-4,
        weight_decay: float = 1e-4,
        seed: int = 0,
        warmup_steps: int = 0,
        compile_mode: CompileMode = "none",
        channels_last: bool = False,
    ):
        super().__init__(
            stage="denoiser",
            num_samples=latents.shape[1],
            batch_size=batch_size,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            seed=seed,
            warmup_steps=warmup_steps,
            compile_mode=compile_mode,
            channels_last=channels_last,
        )
        self.network = network
        self.lay_out(network)
        self._objective = squared_error
        self.scheduler = scheduler
        self.prediction_type: PredictionType = scheduler.config["prediction_type"]
        self.alphas_cumprod: Tensor = scheduler.alphas_cumprod
        self.latents = latents
        self.audited = audited
        self.audit_batch_size = audit_batch_size

    @property
    def predictor(self) -> NetworkPredictor:
        """The network as attacks see it, with whatever weights are in it now."""
        return NetworkPredictor(self.network, self.alphas_cumprod, self.prediction_type)

    def on_fit_start(self) -> None:
        self.latents = self.latents.to(self.device)
        self.alphas_cumprod = self.alphas_cumprod.to(self.device)
        self._objective = self.compiled(squared_error)

    def loss(self, indices: Tensor) -> dict[str, Tensor]:
        """One denoiser pass, forward and backward."""
        count = len(indices)
        variant = torch.randint(len(self.latents), (count,), device=self.device)
        latent = self.latents[self.share(variant), self.share(indices)]
        timestep = self.share(torch.randint(len(self.alphas_cumprod), (count,), device=self.device))
        noise = self.share(torch.randn(count, *latent.shape[1:], dtype=latent.dtype, device=self.device))
        self.draw_apart()
        error = self._objective(self.network, self.alphas_cumprod, self.prediction_type, latent, noise, timestep)
        return {"loss": error.mean()}

    def memory_advice(self) -> str:
        if self._is_in_step:
            return super().memory_advice()
        budget = DEFAULT_MEMORY_BUDGET.get(self.device.type, DEFAULT_MEMORY_BUDGET["cpu"])
        return (
            f"in an audit: lower audit.batch_size (now {self.audit_batch_size}); the memory budget of an attack is "
            f"{budget / 2**30:g} GiB beside it."
        )

    def val_dataloader(self) -> AuditLoader:
        return AuditLoader(self.audited, self.audit_batch_size)

    def validation_step(self, batch: AuditBatch, batch_idx: int) -> Tensor:
        """Denoising loss at `num_loss_timesteps` stratified timesteps per sample, the same noise in every audit: (batch,)."""
        num_strata = self.num_loss_timesteps
        draw = torch.arange(num_strata, device=self.device)[:, None]
        key = (self.seed, batch.sample_index, draw)
        position = (draw + uniform("loss-timestep", key, (), self.device)) / num_strata
        timestep = (position * len(self.alphas_cumprod)).long().flatten()
        noise = normal("loss-noise", key, batch.latent.shape[1:], self.device).flatten(0, 1)
        latent = batch.latent.repeat(num_strata, 1, 1, 1)
        with torch.autocast(self.device.type, enabled=False):  # float32, whatever the steps are in
            error = squared_error(self.network, self.alphas_cumprod, self.prediction_type, latent, noise, timestep)
        return error.flatten(1).mean(1).reshape(num_strata, -1).mean(0)


def squared_error(
    network: nn.Module,
    alphas_cumprod: Tensor,
    prediction_type: PredictionType,
    latent: Latent,
    noise: Tensor,
    timestep: Timestep,
) -> Tensor:
    """(output - target)^2 at z_t, like `latent`. One network pass."""
    noisy = add_noise(latent, noise, alphas_cumprod, timestep)
    target = training_target(latent, noise, alphas_cumprod, timestep, prediction_type)
    return (network(noisy, timestep) - target).square()


def finished_epochs(module: StepwiseModule) -> int:
    """Epochs finished at a validation: 0 in the check before the first step, else the running epoch counts as finished."""
    return module.current_epoch if module.trainer.sanity_checking else module.current_epoch + 1
