"""What several tests of the decoder's geometry use: a small autoencoder, and a count of products with J and J^T."""

from collections import Counter

import pytest
import torch

from ldm_privacy.geometry.jacobian import DecoderJacobian


@pytest.fixture
def products(monkeypatch):
    """Vectors that went through `times` and `transpose_times`, of all samples together."""
    count = Counter()

    def counting(name, original):
        def product(jacobian, vectors, **options):
            result = original(jacobian, vectors, **options)
            count[name] += len(vectors) * vectors.shape[1]
            return result

        return product

    for name in ("times", "transpose_times"):
        monkeypatch.setattr(DecoderJacobian, name, counting(name, getattr(DecoderJacobian, name)))
    return count


@pytest.fixture
def autoencoder():
    """A function (attention) -> AutoencoderKL in double precision, 2xhxw latents of 3x2hx2w images."""
    from diffusers import AutoencoderKL

    def build(attention=True):
        torch.manual_seed(0)
        network = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(4, 8),
            norm_num_groups=2,
            latent_channels=2,
            mid_block_add_attention=attention,
        )
        return network.eval().requires_grad_(False).double()

    return build
