"""Stage 2: the denoiser."""

from collections.abc import Callable
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from ldm_privacy.diffusion import PredictionType, add_noise, training_target
from ldm_privacy.models.predictor import NetworkPredictor, output_of
from ldm_privacy.training.stepwise import Steps, StepwiseModule
from ldm_privacy.types import Condition, Latent, Timestep


class DenoiserModule(StepwiseModule):
    """Trains a denoiser on cached latents.

    loss = mean squared error between output and target at a uniform timestep (Ho et al. 2020, 2006.11239, eq. 14).

    Args:
        network: (z_t, t, **condition) -> output like z_t.
        alphas_cumprod: (num_train_timesteps,).
        latents: (variants, samples, channels, height, width): the members' latents; variant 1, where it exists, is the
            mirrored image's. A variant is drawn for each sample and step.
        prediction_type: What the network learns to output.
        condition: Name -> (samples, ...); none for an unconditional denoiser.
        null: Name -> (1, ...), what stands in for a condition that is dropped.
        condition_dropout: Share of the steps' samples whose condition is dropped.
        steps: See `StepwiseModule`.
    """

    def __init__(
        self,
        network: nn.Module,
        alphas_cumprod: Tensor,
        latents: Tensor,
        *,
        prediction_type: PredictionType = "epsilon",
        condition: Condition | None = None,
        null: Condition | None = None,
        condition_dropout: float = 0.0,
        **steps: Unpack[Steps],
    ):
        super().__init__(stage="denoiser", num_samples=latents.shape[1], **steps)
        self.lay_out(network)
        self.network, self.alphas_cumprod, self.latents = network, alphas_cumprod, latents
        self.prediction_type: PredictionType = prediction_type
        self.condition, self.null, self.condition_dropout = dict(condition or {}), dict(null or {}), condition_dropout
        self._objective: Callable[..., Any] = squared_error

    @property
    def predictor(self) -> NetworkPredictor:
        """The network as attacks see it, with whatever weights are in it now."""
        return NetworkPredictor(self.network, self.alphas_cumprod, self.prediction_type)

    def on_fit_start(self) -> None:
        self.latents, self.alphas_cumprod = self.latents.to(self.device), self.alphas_cumprod.to(self.device)
        self.condition = {name: value.to(self.device) for name, value in self.condition.items()}
        self.null = {name: value.to(self.device) for name, value in self.null.items()}
        self._objective = self.compiled(squared_error)

    def loss(self, indices: Tensor) -> dict[str, Tensor]:
        """One denoiser pass, forward and backward."""
        count = len(indices)
        variant = torch.randint(len(self.latents), (count,), device=self.device)
        latent = self.latents[self.share(variant), self.share(indices)]
        timestep = self.share(torch.randint(len(self.alphas_cumprod), (count,), device=self.device))
        noise = self.share(torch.randn(count, *latent.shape[1:], dtype=latent.dtype, device=self.device))
        condition = self._conditions(indices)
        self.draw_apart()
        error = self._objective(self.network, self.alphas_cumprod, self.prediction_type, latent, noise, timestep, condition)
        return {"loss": error.mean()}

    def _conditions(self, indices: Tensor) -> dict[str, Tensor]:
        """The samples' conditions, some of them dropped."""
        if not self.condition:
            return {}
        dropped = self.share(torch.rand(len(indices), device=self.device) < self.condition_dropout)
        rows = self.share(indices)
        return {
            name: torch.where(dropped.reshape(-1, *[1] * (value.ndim - 1)), self.null[name], value[rows])
            for name, value in self.condition.items()
        }


def squared_error(
    network: nn.Module,
    alphas_cumprod: Tensor,
    prediction_type: PredictionType,
    latent: Latent,
    noise: Tensor,
    timestep: Timestep,
    condition: Condition,
) -> Tensor:
    """(output - target)^2 at z_t, like `latent`. One network pass."""
    noisy = add_noise(latent, noise, alphas_cumprod, timestep)
    target = training_target(latent, noise, alphas_cumprod, timestep, prediction_type)
    return (output_of(network, noisy, timestep, condition) - target).square()
