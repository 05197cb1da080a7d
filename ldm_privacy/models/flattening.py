"""A channel map after which the decoder stretches every channel alike."""

import torch
from pydantic import PositiveInt
from torch import Tensor

from ldm_privacy.geometry.jacobian import DecoderJacobian, in_parts
from ldm_privacy.models.channel_map import ChannelMap, channel_moments, power_of
from ldm_privacy.models.codec import Codec
from ldm_privacy.processes import gather, share_of
from ldm_privacy.randomness import normal, uniform
from ldm_privacy.registry import CHANNEL_MAPS
from ldm_privacy.types import Image, Progress

SAMPLES_AT_ONCE = 16
"""How often progress is told of."""


@CHANNEL_MAPS.register("flattening")
class Flattening:
    """latent = s B^(1/2) (mean - shift), B the mean channel block of the pullback metric J^T J, J = dD/dmean.

    B is the mean over members and positions of the (channels, channels) blocks of J^T J on its diagonal, so that of the new
    metric, B^(-1/2) J^T J B^(-1/2) / s^2, it is the identity / s^2. The number s makes the latents' standard deviation over
    members, channels and positions 1, as `scaling_factor` has it, and `shift` is each channel's mean.

    B is estimated by Gaussian probes v in image space, E[(J^T v)_c (J^T v)_c'] = (J^T J)_cc' at each position: unbiased, with a
    relative standard deviation of about sqrt(2 / (samples * probes * positions)), beside how much samples differ. Probes are
    drawn by (seed, sample index, probe), samples by a hash of their index.
    """

    @staticmethod
    def build(
        *,
        means: Tensor,
        codec: Codec,
        sample_index: Tensor,
        seed: int,
        progress: Progress,
        num_samples: PositiveInt = 256,
        num_probes: PositiveInt = 4,
    ) -> ChannelMap:
        """Fitted. One decoder pass a sample and one backward pass a probe, shared between the processes.

        Args:
            means: (members, channels, height, width), posterior means.
            codec: With a decoder.
            sample_index: (members,).
            seed: Of the probes and of which members are taken.
            progress: Shows how far it is.
            num_samples: Members that B is the mean over; all where there are fewer.
            num_probes: A sample.
        """
        chosen = uniform("flattening", (seed, sample_index), ()).argsort()[:num_samples]
        mine = chosen[share_of(len(chosen))]
        blocks = []
        with progress("Flattening channels (pullback metric)", len(mine)) as done:
            for start in range(0, len(mine), SAMPLES_AT_ONCE):
                some = mine[start : start + SAMPLES_AT_ONCE]
                latent = codec.channel_map(means[some].to(codec.device))
                blocks.append(channel_blocks(codec, latent, sample_index[some], num_probes=num_probes, seed=seed).cpu())
                done(start + len(some))
        channels = means.shape[1]
        of_all = torch.cat(gather(torch.cat([torch.empty(0, channels, channels, dtype=torch.float64), *blocks])))
        # J is of the latents that the codec has now; of its means it is J times that map's matrix.
        before = codec.channel_map.matrix.double()
        matrix = power_of(before.T @ of_all.mean(0) @ before, 0.5, what="influence of the channels")
        shift, covariance = channel_moments(means)
        # The mean square of the new numbers, of all channels: a mean divides by all of them.
        count = means.numel() // channels
        squares = (matrix @ covariance @ matrix.T).trace() * (count - 1) / (count * channels)
        spread = squares.sqrt().clamp_min(1e-8)
        return ChannelMap("flattening", shift.float(), (matrix / spread).float())

    @staticmethod
    def passes(num_members: int, *, num_samples: int = 256, num_probes: int = 4) -> dict[str, int]:
        """Network -> passes of a fit, for the plan."""
        taken = min(num_members, num_samples)
        return {"decoder": taken, "decoder products": taken * num_probes}


def channel_blocks(codec: Codec, latent: Tensor, sample_index: Tensor, *, num_probes: int, seed: int) -> Tensor:
    """(batch, channels, channels) float64: of each sample the mean over positions of J^T J's diagonal blocks, estimated."""

    def blocks(jacobian: DecoderJacobian, rows: slice) -> Tensor:
        index, image = sample_index[rows], jacobian.image
        products = [jacobian.transpose_times(_probes(index, probe, image, seed)[None])[0] for probe in range(num_probes)]
        values = torch.stack(products).double().flatten(3)  # (probes, batch, channels, positions)
        return torch.einsum("kbip,kbjp->bij", values, values) / (num_probes * values.shape[-1])

    return torch.cat(in_parts(blocks, codec.decode, latent))


def _probes(sample_index: Tensor, probe: int, image: Image, seed: int) -> Image:
    return normal("flattening-probe", (seed, sample_index.to(image.device), probe), image.shape[1:], image.device)
