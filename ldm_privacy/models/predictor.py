"""The noise predictor that attacks see: epsilon, whatever the network was trained to output."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ldm_privacy.device import memory_budget, passes
from ldm_privacy.diffusion import PredictionType, check_prediction_type, epsilon_from_output, flow_sigma, flow_state
from ldm_privacy.errors import UserError
from ldm_privacy.types import Condition, Latent, NoisePredictor, Timestep, rows_of

Time = Literal["index", "sigma_1000", "sigma", "one_minus_sigma"]
"""The number that a network is given as its timestep: that of the schedule, or by sigma, the flow's share of noise."""


BYTES_PER_WIDTH = 200
"""What a pass without gradients is taken to hold for every position that the network looks at (a pixel of the latent, or a
patch) and every channel that it has there. Measured, with 1 to 860 million parameters: 75 to 220; see
docs/reference/memory.md."""


def bytes_per_number(network: object) -> float:
    """What a pass of a network holds per number of its input, from the config of its first module that has one of diffusers.

    Of another network: as if it had 32 channels for each of its input's.
    """
    modules = network.modules() if isinstance(network, nn.Module) else (network,)
    configs: Any = (getattr(each, "config", None) for each in modules)
    config = next((each for each in configs if isinstance(each, Mapping) and each.get("in_channels")), {})
    width = (config.get("block_out_channels") or [None])[0]
    if width is None and config.get("attention_head_dim"):
        width = config.get("num_attention_heads", 1) * config["attention_head_dim"]
    if width is None:
        return BYTES_PER_WIDTH * 32
    patch = config.get("patch_size") or 1
    return BYTES_PER_WIDTH * (width / (config["in_channels"] * (patch**2 if isinstance(patch, int) else math.prod(patch))))


def rows_per_pass(predictor: NoisePredictor, latent: Latent, budget: int | None = None) -> int:
    """How many such latents go through a denoiser at once, at least one: half the budget is for its activations.

    A predictor of your own may say what it holds as its `bytes_per_number`.
    """
    held = getattr(predictor, "bytes_per_number", bytes_per_number(None))
    return max(1, int((budget or memory_budget(latent.device)) / 2 / (latent.shape[1:].numel() * held)))


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
        prediction_type: What the output means: "epsilon", "v_prediction", "sample" or "flow". The network of a flow is given
            x_s in place of z_t; see `ldm_privacy.diffusion`.
        given: Turns the condition of a batch into keyword arguments of the network; see `ConditionSource.given`.
        time: What the network is given as its timestep; None: "sigma_1000" for a flow (Stable Diffusion 3), else "index".
        negated: The network returns the negative of what `prediction_type` says.

    Raises:
        UserError: An unknown prediction type.
    """

    network: nn.Module | Callable[..., Any]
    alphas_cumprod: Tensor
    prediction_type: PredictionType = "epsilon"
    given: Callable[[Condition], Condition] = as_it_is
    time: Time | None = None
    negated: bool = False

    def __post_init__(self) -> None:
        check_prediction_type(self.prediction_type)

    def __call__(self, noisy_latent: Latent, timestep: Timestep, condition: Condition) -> Latent:
        """epsilon(z_t, t, c), in passes of `rows_per_pass`. Raises UserError where the network answers in another shape."""
        output = self.output(noisy_latent, timestep, condition)
        return epsilon_from_output(output, noisy_latent, self.alphas_cumprod, timestep, self.prediction_type)

    @property
    def bytes_per_number(self) -> float:
        """See `bytes_per_number`."""
        return bytes_per_number(self.network)

    def output(self, noisy_latent: Latent, timestep: Timestep, condition: Condition) -> Latent:
        """What `prediction_type` names, like z_t; cost and errors of a call."""
        if len(noisy_latent) <= (most := rows_per_pass(self, noisy_latent)):
            return self._pass(noisy_latent, timestep, condition)
        parts = passes(len(noisy_latent), most)
        return torch.cat([self._pass(noisy_latent[rows], timestep[rows], rows_of(condition, rows)) for rows in parts])

    def _pass(self, noisy_latent: Latent, timestep: Timestep, condition: Condition) -> Latent:
        weights = self.network.parameters() if isinstance(self.network, nn.Module) else iter(())
        dtype = next((each.dtype for each in weights if each.is_floating_point()), torch.float32)
        condition = self.given(condition)
        state, time = network_input(noisy_latent, self.alphas_cumprod, timestep, self.prediction_type, self.time)
        if dtype == torch.float32:
            output = output_of(self.network, state, time, condition)
        else:
            given = {name: value.to(dtype) if value.is_floating_point() else value for name, value in condition.items()}
            output = output_of(self.network, state.to(dtype), time, given).float()
        check_output(output, noisy_latent)
        return -output if self.negated else output


class WithoutVariance(nn.Module):
    """A network that also outputs the variance of a step, behind what is predicted: its first channels alone.

    Args:
        network: (z_t, t, **condition) -> record with `sample`, more channels than z_t.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, noisy_latent: Latent, timestep: Tensor, **condition: Tensor) -> Tensor:
        """What is predicted, like z_t."""
        return output_of(self.network, noisy_latent, timestep, condition)[:, : noisy_latent.shape[1]]


def network_input(
    noisy_latent: Latent,
    alphas_cumprod: Tensor,
    timestep: Timestep,
    prediction_type: PredictionType,
    time: Time | None = None,
) -> tuple[Latent, Tensor]:
    """What a network is given for z_t and t: (state, time), the state like z_t, the time (batch,).

    Of a flow x_s and a real number, in the dtype of z_t; otherwise both as they are. Arguments as of `NetworkPredictor`.
    """
    is_flow = prediction_type == "flow"
    time = time or ("sigma_1000" if is_flow else "index")
    if time == "index" and not is_flow:
        return noisy_latent, timestep
    abar = alphas_cumprod.to(timestep.device)[timestep]
    sigma = flow_sigma(abar)
    number = {"index": timestep, "sigma": sigma, "sigma_1000": 1000 * sigma, "one_minus_sigma": 1 - sigma}[time]
    return flow_state(noisy_latent, abar) if is_flow else noisy_latent, number.to(noisy_latent.dtype)


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
