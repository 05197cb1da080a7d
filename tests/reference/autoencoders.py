"""An autoencoder whose posterior means have a mean far from 0 and unlike spreads, where a wrong normalisation shows."""

import torch

from ldm_privacy.models.kl import KLCodec

MEAN, SPREAD = [5.0, -7.0, 3.0, 11.0], [1.0, 0.2, 4.0, 0.5]


def far_from_zero() -> KLCodec:
    """A small KL codec of grey 8 x 8 images and 4 x 4 x 4 latents, float64, the same at every call; no channel map."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        codec = KLCodec.build(image_channels=1, resolution=8, block_out_channels=(8, 8), norm_num_groups=4)
    network = codec.network.double()
    network.quant_conv.weight[:4] *= torch.tensor(SPREAD)[:, None, None, None]
    network.quant_conv.bias[:4] = torch.tensor(MEAN).double()
    return codec


def grey_images(count: int) -> torch.Tensor:
    """Images for it, float64."""
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(1)).double() * 2 - 1
