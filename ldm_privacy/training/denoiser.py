"""Stage 2: the denoiser."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from ldm_privacy.device import passes
from ldm_privacy.diffusion import PredictionType, add_noise, training_target
from ldm_privacy.models.predictor import NetworkPredictor, as_it_is, network_input, output_of
from ldm_privacy.training.accumulated import accumulated
from ldm_privacy.training.stepwise import Steps, StepwiseModule
from ldm_privacy.training.timesteps import TimestepSampler, Uniform
from ldm_privacy.types import Condition, Latent, Timestep, rows_of


class DenoiserModule(StepwiseModule):
    """Trains a denoiser on cached latents.

    loss = mean squared error between output and target at a random timestep (Ho et al. 2020, 2006.11239, eq. 14); of a flow
    |v - (n - z0)|^2 (Liu et al. 2022, 2209.03003, eq. 1).

    Args:
        network: (z_t, t, **condition) -> output like z_t.
        alphas_cumprod: (num_train_timesteps,).
        latents: (variants, samples, channels, height, width): the members' latents; variant 1, where it exists, is the
            mirrored image's. A variant is drawn for each sample and step.
        latents_to_device: Bring the latents to the device whole. False: a batch at a time, from the CPU (where they are mapped,
            from a file); a step then waits for its rows.
        prediction_type: What the network learns to output.
        choices: Name -> (samples, choices, ...), what a sample may be told: one of them is drawn for each sample and step. None
            for an unconditional denoiser.
        num_choices: (samples,) how many of them each sample has; one each by default.
        null: Name -> (1, ...), what stands in for a condition that is dropped.
        condition_dropout: Share of the steps' samples whose condition is dropped.
        given: Turns the condition of a batch into keyword arguments of the network.
        given_in_training: The same in a step, where that is something else; see `ConditionSource.given_in_training`.
        repeats: (samples,) how often a sample comes in an epoch; once each by default.
        timesteps: Draws those of a step; uniform ones by default.
        num_parts: In which a step's batch goes through the network, one after the other: the gradient is that of the whole
            batch, up to rounding (and but for dropout masks), the memory that of a part.
        steps: See `StepwiseModule`.
    """

    def __init__(
        self,
        network: nn.Module,
        alphas_cumprod: Tensor,
        latents: Tensor,
        *,
        latents_to_device: bool = True,
        prediction_type: PredictionType = "epsilon",
        choices: Condition | None = None,
        num_choices: Tensor | None = None,
        null: Condition | None = None,
        condition_dropout: float = 0.0,
        given: Callable[[Condition], Condition] = as_it_is,
        given_in_training: Callable[[Condition, int, Callable[[Tensor], Tensor]], Condition] | None = None,
        repeats: Tensor | None = None,
        timesteps: TimestepSampler | None = None,
        num_parts: int = 1,
        **steps: Unpack[Steps],
    ):
        rows = torch.arange(latents.shape[1])
        rows = rows if repeats is None else rows.repeat_interleave(repeats)
        super().__init__(stage="denoiser", num_samples=len(rows), **steps)
        self.lay_out(network)
        self.network, self.alphas_cumprod, self.latents = network, alphas_cumprod, latents
        self.latents_to_device = latents_to_device
        self.prediction_type: PredictionType = prediction_type
        self.num_parts = num_parts
        self.rows = rows
        self.timesteps = timesteps or Uniform(num_train_timesteps=len(alphas_cumprod))
        self.choices, self.null, self.condition_dropout = dict(choices or {}), dict(null or {}), condition_dropout
        self.num_choices = torch.ones(latents.shape[1], dtype=torch.int64) if num_choices is None else num_choices
        self.given, self._draws_choice = given, bool((self.num_choices > 1).any())
        self.given_in_training = given_in_training or (lambda condition, count, share: given(condition))
        self._objective: Callable[..., Any] = squared_error

    def __deepcopy__(self, memo: dict[int, Any]) -> "DenoiserModule":
        """A module of its own, but for what it is trained on: averaged weights are in a copy of all that a training holds."""
        memo |= {id(each): each for each in (self.latents, *self.choices.values(), *self.null.values())}
        copy = memo[id(self)] = type(self).__new__(type(self))
        copy.__setstate__(deepcopy(self.__getstate__(), memo))
        return copy

    @property
    def predictor(self) -> NetworkPredictor:
        """The network as attacks see it, with whatever weights are in it now."""
        return NetworkPredictor(self.network, self.alphas_cumprod, self.prediction_type, self.given)

    def on_fit_start(self) -> None:
        self.alphas_cumprod = self.alphas_cumprod.to(self.device)
        if self.latents_to_device:
            self.latents = self.latents.to(self.device)
        self.rows, self.num_choices = self.rows.to(self.device), self.num_choices.to(self.device)
        self.choices = {name: value.to(self.device) for name, value in self.choices.items()}
        self.null = {name: value.to(self.device) for name, value in self.null.items()}
        self._objective = self.compiled(squared_error)

    def loss(self, indices: Tensor) -> dict[str, Tensor]:
        """One denoiser pass, forward and backward."""
        count, rows = len(indices), self.rows[indices]
        variant = torch.randint(len(self.latents), (count,), device=self.device)
        where = self.latents.device
        latent = self.latents[self.share(variant).to(where), self.share(rows).to(where)].to(self.device)
        timestep = self.share(self.timesteps(count, self.device))
        noise = self.share(torch.randn(count, *latent.shape[1:], dtype=latent.dtype, device=self.device))
        condition = self.given_in_training(self._conditions(rows), count, self.share)
        self.draw_apart()

        def mean(rows: slice) -> Tensor:
            """Those samples' part of the mean over the batch."""
            given = latent[rows], noise[rows], timestep[rows], rows_of(condition, rows)
            error = self._objective(self.network, self.alphas_cumprod, self.prediction_type, *given)
            return error.mean() * (len(given[0]) / len(latent))

        if self.num_parts == 1:
            return {"loss": mean(slice(len(latent)))}
        parts = passes(len(latent), -(-len(latent) // self.num_parts))
        trained = [each for each in self.network.parameters() if each.requires_grad]
        return {"loss": accumulated(mean, parts, trained, self._loss_scale)}

    @property
    def _loss_scale(self) -> Tensor | float:
        """That the gradients of a step in half precision are made with; read on the device, which nothing waits for."""
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        return 1.0 if scaler is None else scaler.scale(torch.ones((), device=self.device))

    def memory_advice(self) -> str:
        return f"{super().memory_advice().rstrip('.')}, or raise denoiser.accumulate (now {self.num_parts})."

    def _conditions(self, rows: Tensor) -> dict[str, Tensor]:
        """What those samples are told in this step, some of them nothing."""
        if not self.choices:
            return {}
        dropped = self.share(torch.rand(len(rows), device=self.device) < self.condition_dropout)
        mine = self.share(rows)
        choice = torch.zeros_like(mine)
        if self._draws_choice:
            drawn = self.share(torch.rand(len(rows), dtype=torch.float64, device=self.device))
            choice = (drawn * self.num_choices[mine]).long()
        return {
            name: torch.where(dropped.reshape(-1, *[1] * (value.ndim - 2)), self.null[name], value[mine, choice])
            for name, value in self.choices.items()
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
    """(output - target)^2 at z_t, like `latent`; of a flow at x_s, with 1000 s as its timestep. One network pass."""
    noisy = add_noise(latent, noise, alphas_cumprod, timestep)
    state, time = network_input(noisy, alphas_cumprod, timestep, prediction_type)
    target = training_target(latent, noise, alphas_cumprod, timestep, prediction_type)
    return (output_of(network, state, time, condition) - target).square()
