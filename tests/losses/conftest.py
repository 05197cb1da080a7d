"""A small autoencoder, and a batch on its way through it, in float64."""

import pytest
import torch

from ldm_privacy.losses.base import Autoencoded
from ldm_privacy.models.kl import KLCodec


@pytest.fixture(scope="session")
def features(tmp_path_factory):
    """A folder with a small vision network."""
    from transformers import ResNetConfig, ResNetModel

    from tests.models.test_features import PROCESSORS

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("features")
    ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")).save_pretrained(path)
    import transformers

    name, options = PROCESSORS["ResNetModel"]
    getattr(transformers, name)(**options).save_pretrained(path)
    return path


@pytest.fixture
def network():
    torch.manual_seed(0)
    return KLCodec.build(image_channels=1, resolution=8, block_out_channels=(8, 8), norm_num_groups=4).network.requires_grad_(
        True
    )


@pytest.fixture
def batch(network):
    """Six samples through the autoencoder."""
    network.double()
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(6, 1, 8, 8, generator=generator, dtype=torch.float64) * 2 - 1
    posterior = network.encode(image).latent_dist
    noise = torch.randn(posterior.mean.shape, generator=generator, dtype=torch.float64)

    def decode(latent):
        return network.decode(latent).sample

    output = decode(posterior.mean + (0.5 * posterior.logvar).exp() * noise)
    return Autoencoded(image, posterior.mean, posterior.logvar, output, decode, network.decoder.conv_out.weight, seed=3)
