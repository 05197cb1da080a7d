"""What every codec has, whoever wrote it."""

import pytest
import torch

from ldm_privacy.audit.measure import Measuring
from ldm_privacy.config import Component
from ldm_privacy.geometry.exact import ExactInfluence
from ldm_privacy.models.channel_map import ChannelMap
from ldm_privacy.models.codec import Codec
from ldm_privacy.recipes.terminal import progress
from ldm_privacy.registry import CHANNEL_MAPS
from ldm_privacy.types import no_progress
from tests.reference.autoencoders import far_from_zero, grey_images
from tests.reference.geometry import dense_jacobian


class Brighter(Codec):
    """Pixels times a factor, plus a fixed picture; no network."""

    name = "brighter"

    def __init__(self, factor: float, offset: torch.Tensor):
        self.factor, self.offset = factor, offset

    def mean(self, image):
        return self.factor * image + self.offset

    def record(self):
        return {"class": self.name, "factor": self.factor, "offset": self.offset, "channel_map": self.channel_map.record()}


def test_codecs_without_a_network_share_stored_latents_only_where_they_are_the_same(tmp_path):
    index, zeros, ones = torch.arange(4), torch.zeros(1, 2, 2), torch.ones(1, 2, 2)

    def means(codec):
        measuring = Measuring(codec, lambda index: torch.ones(len(index), 1, 2, 2), "", tmp_path, torch.device("cpu"), progress)
        return measuring.means(index)

    assert (means(Brighter(2.0, zeros)) == 2).all()
    assert (means(Brighter(3.0, zeros)) == 3).all()
    assert (means(Brighter(3.0, ones)) == 4).all()
    assert (means(Brighter(2.0, zeros)) == 2).all()
    assert len(list(tmp_path.glob("*.safetensors"))) == 3


def test_a_codec_goes_to_a_device_with_its_network():
    for codec in (far_from_zero(), Brighter(2.0, torch.zeros(1))):
        assert codec.device == torch.device("cpu")
        assert codec.to("meta") is codec
        assert codec.device == torch.device("meta")
        assert codec.network is None or codec.network.device == torch.device("meta")


def mixing(means):
    """A full matrix and a shift: what a whitening would be."""
    generator = torch.Generator().manual_seed(2)
    return ChannelMap("mixing", means.mean((0, 2, 3)).float(), torch.randn(4, 4, generator=generator))


@pytest.mark.parametrize("name", [*sorted(CHANNEL_MAPS), "mixing"])
def test_the_decoder_is_at_the_posterior_mean_whatever_the_channel_map(name):
    codec, image = far_from_zero(), grey_images(6)
    mean = codec.network.encode(image).latent_dist.mean
    provided = {"means": mean, "codec": codec, "sample_index": torch.arange(6), "seed": 0, "progress": no_progress}
    codec.channel_map = Component(CHANNEL_MAPS, name, {}).build(**provided) if name in CHANNEL_MAPS else mixing(mean)
    latent = codec.encode(image)
    for place in ((0, 0, 0), (5, 3, 1)):
        sample, row, column = place
        at = mean[sample, :, row, column] - codec.channel_map.shift
        torch.testing.assert_close(latent[sample, :, row, column], codec.channel_map.matrix.double() @ at)
    torch.testing.assert_close(codec.decode(latent), codec.network.decode(mean).sample)
    # d decode / d latent = J M^-1 with the J of the network at the mean, position by position.
    jacobian = dense_jacobian(lambda mean: codec.network.decode(mean).sample, mean[:2]).reshape(2, 64, 4, 16)
    moved = torch.einsum("npcx,cd->npdx", jacobian, codec.channel_map.matrix.double().inverse())
    influence = ExactInfluence()(codec.decode, latent[:2], torch.arange(2)).influence
    torch.testing.assert_close(influence, moved.square().sum(1).reshape(2, 4, 4, 4), rtol=1e-9, atol=0)


def test_what_is_measured_of_the_audited_samples_is_of_their_posterior_means():
    codec, image, index = far_from_zero(), grey_images(8), torch.tensor([1, 2, 4, 5, 7])
    measuring = Measuring(codec, image.__getitem__, "", None, torch.device("cpu"), progress)
    means = measuring.means(index)
    expected = codec.network.encode(image[index]).latent_dist.mean
    torch.testing.assert_close(means, expected)
    torch.testing.assert_close(
        measuring.means(index, mirrored=True), codec.network.encode(image[index].flip(-1)).latent_dist.mean
    )
    codec.channel_map = CHANNEL_MAPS.get("per_channel")(means[:3])
    samples = measuring.samples(index, means, torch.arange(5) < 3, influence=ExactInfluence())
    decoded = codec.network.decode(expected).sample
    torch.testing.assert_close(samples.reconstruction_error, (decoded - image[index]).abs().mean((1, 2, 3)))
    torch.testing.assert_close(measuring.decoded(samples.latent[:2]), decoded[:2])
    torch.testing.assert_close(measuring.decoded(samples.latent), decoded)
    columns = dense_jacobian(lambda mean: codec.network.decode(mean).sample, expected[3:]).square().sum(1)
    scale = codec.channel_map.matrix.diagonal().double()[:, None, None]
    torch.testing.assert_close(samples.influence[3:], columns.reshape(2, 4, 4, 4) / scale**2, rtol=1e-9, atol=0)
