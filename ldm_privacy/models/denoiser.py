"""Denoisers and the noise predictor that attacks see."""

from collections.abc import Sequence
from typing import Annotated, Protocol

from diffusers import UNet2DModel
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from ldm_privacy.diffusion import PredictionType, epsilon_from_output
from ldm_privacy.errors import UserError
from ldm_privacy.models.autoencoder import Channels, check_groups
from ldm_privacy.registry import DENOISERS
from ldm_privacy.types import Latent, Timestep


class DenoiserNetwork(Protocol):
    """What a registered denoiser is: a module (z_t, t) -> output like z_t, wrapped or plain tensor."""

    def __call__(self, sample: Latent, timestep: Timestep) -> Tensor: ...


@DENOISERS.register("unet")
def unet(
    *,
    latent_channels: int,
    latent_size: int,
    block_out_channels: Channels = (128, 256, 256, 256),
    layers_per_block: PositiveInt = 2,
    attention: Sequence[bool] | None = None,
    mid_block_attention: bool = False,
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    norm_num_groups: PositiveInt = 32,
) -> nn.Module:
    """diffusers' UNet2DModel as an unconditional latent denoiser.

    Args:
        latent_channels, latent_size: Of the latents.
        block_out_channels: Channels per resolution, finest first; each block after the first halves height and width.
        layers_per_block: Residual blocks per resolution.
        attention: Which blocks have self-attention; none by default.
        mid_block_attention: Self-attention at the coarsest resolution.
        dropout: In the residual blocks.
        norm_num_groups: Groups of every group normalisation.

    Raises:
        UserError: Latents that can't be halved that often, or channels that the groups don't divide.
    """
    check_groups("denoiser.network", block_out_channels, norm_num_groups)
    factor = 2 ** (len(block_out_channels) - 1)
    if latent_size % factor:
        raise UserError(
            f"denoiser.network.block_out_channels: {list(block_out_channels)} halves the latent {len(block_out_channels) - 1} "
            f"times, but its size is {latent_size}. Use fewer blocks or a larger data.resolution."
        )
    attention = attention or [False] * len(block_out_channels)
    if len(attention) != len(block_out_channels):
        raise UserError(
            f"denoiser.network.attention: {len(attention)} entries for {len(block_out_channels)} block_out_channels."
        )
    return _Plain(
        UNet2DModel(
            sample_size=latent_size,
            in_channels=latent_channels,
            out_channels=latent_channels,
            block_out_channels=tuple(block_out_channels),
            layers_per_block=layers_per_block,
            down_block_types=tuple("AttnDownBlock2D" if attend else "DownBlock2D" for attend in attention),
            up_block_types=tuple("AttnUpBlock2D" if attend else "UpBlock2D" for attend in reversed(attention)),
            add_attention=mid_block_attention,
            dropout=dropout,
            norm_num_groups=norm_num_groups,
        )
    )


class _Plain(nn.Module):
    """A diffusers network without the wrapper around its output."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, sample: Latent, timestep: Timestep) -> Tensor:
        return self.network(sample, timestep).sample


class NetworkPredictor:
    """A network as a `NoisePredictor`: epsilon, whatever it was trained to output.

    Args:
        network: (z_t, t) -> output like z_t.
        alphas_cumprod: (num_train_timesteps,).
        prediction_type: What the output means: "epsilon", "v_prediction" or "sample".
    """

    def __init__(self, network: DenoiserNetwork | nn.Module, alphas_cumprod: Tensor, prediction_type: PredictionType):
        self.network = network
        self.alphas_cumprod = alphas_cumprod
        self.prediction_type: PredictionType = prediction_type

    def __call__(self, noisy_latent: Latent, timestep: Timestep, condition: Tensor | None) -> Latent:
        """epsilon(z_t, t). One network pass. The networks here take no condition, so it must be None."""
        if condition is not None:
            raise ValueError("this denoiser takes no condition")
        output = self.network(noisy_latent, timestep)
        return epsilon_from_output(output, noisy_latent, self.alphas_cumprod, timestep, self.prediction_type)


def num_parameters(network: nn.Module) -> int:
    """Number of trained numbers."""
    return sum(parameter.numel() for parameter in network.parameters())
