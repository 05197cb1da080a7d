"""The noise predictor that attacks see: epsilon, whatever the network was trained to output."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ldm_privacy.diffusion import PredictionType, epsilon_from_output
from ldm_privacy.errors import UserError
from ldm_privacy.types import Condition, Latent, Timestep


def as_it_is(condition: Condition) -> Condition:
    """Of networks that take the condition as it travels."""
    return condition


@dataclass(eq=False)
class NetworkPredictor:
    """A network as a `NoisePredictor`; one of lower precision is fed in that and answers in float32.

    Args:
        network: (z_t, t, **condition) -> output like z_t: a tensor, or a record with the tensor as `sample`, as diffusers'
            networks return it.
        alphas_cumprod: (num_train_timesteps,).
        prediction_type: What the output means: "epsilon", "v_prediction" or "sample".
        given: Turns the condition of a batch into keyword arguments of the network; see `ConditionSource.given`.
    """

    network: nn.Module | Callable[..., Any]
    alphas_cumprod: Tensor
    prediction_type: PredictionType = "epsilon"
    given: Callable[[Condition], Condition] = as_it_is

    def __call__(self, noisy_latent: Latent, timestep: Timestep, condition: Condition) -> Latent:
        """epsilon(z_t, t, c). One network pass. Raises UserError where the network answers in another shape."""
        weights = self.network.parameters() if isinstance(self.network, nn.Module) else iter(())
        dtype = next((each.dtype for each in weights if each.is_floating_point()), torch.float32)
        condition = self.given(condition)
        if dtype == torch.float32:
            output = output_of(self.network, noisy_latent, timestep, condition)
        else:
            given = {name: value.to(dtype) if value.is_floating_point() else value for name, value in condition.items()}
            output = output_of(self.network, noisy_latent.to(dtype), timestep, given).float()
        check_output(output, noisy_latent)
        return epsilon_from_output(output, noisy_latent, self.alphas_cumprod, timestep, self.prediction_type)


def check_output(output: Tensor, noisy_latent: Latent) -> None:
    """Raise UserError where what a network returned for a latent has another shape."""
    if output.shape != noisy_latent.shape:
        shapes = f"{tuple(output.shape[1:])} for a latent of shape {tuple(noisy_latent.shape[1:])}"
        raise UserError(f"target: the network returns {shapes}.")


def output_of(network: Callable[..., Any], noisy_latent: Latent, timestep: Timestep, condition: Condition) -> Tensor:
    """What a network returns, without the record that diffusers puts around it."""
    output = network(noisy_latent, timestep, **condition)
    return output if isinstance(output, Tensor) else output.sample


def num_parameters(network: nn.Module) -> int:
    """Number of trained numbers."""
    return sum(parameter.numel() for parameter in network.parameters())
