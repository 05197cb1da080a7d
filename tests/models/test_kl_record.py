"""The KL codec that a checkpoint holds: rebuilt from its record alone, or refused before anything is allocated."""

import pytest
import torch

from ldm_privacy.errors import UserError
from ldm_privacy.models.channel_map import ChannelMap
from ldm_privacy.models.codec import codec_from_record
from ldm_privacy.models.kl import KLCodec


@pytest.fixture(scope="module")
def codec():
    torch.manual_seed(0)
    codec = KLCodec.build(image_channels=1, resolution=8, block_out_channels=(8, 8), norm_num_groups=4)
    codec.channel_map = ChannelMap("mixed", torch.randn(4), torch.randn(4, 4))
    return codec


@pytest.fixture(scope="module")
def stored(codec, tmp_path_factory):
    """The record as it comes back from a file that may hold nothing but tensors and plain values."""
    path = tmp_path_factory.mktemp("record") / "record.pt"
    torch.save(codec.record(), path)
    return torch.load(path, weights_only=True)


def test_it_is_the_stored_one(codec, stored):
    again = codec_from_record(stored)
    assert type(again) is KLCodec
    assert again.network.state_dict().keys() == codec.network.state_dict().keys()
    assert all(torch.equal(value, codec.network.state_dict()[name]) for name, value in again.network.state_dict().items())
    assert not any(parameter.requires_grad or parameter.is_meta for parameter in again.network.parameters())
    assert not again.network.training
    image = torch.rand(2, 1, 8, 8) * 2 - 1
    latent = codec.encode(image)
    assert torch.equal(again.encode(image), latent)
    assert torch.equal(again.decode(latent), codec.decode(latent))
    assert str(again) == str(codec)


def test_the_posterior_mean_is_the_inverse_map_of_the_latent(codec):
    image = torch.rand(3, 1, 8, 8) * 2 - 1
    latent = codec.encode(image)
    assert latent.shape[1:] == codec.latent_shape(1, 8) == (4, 4, 4)
    torch.testing.assert_close(codec.channel_map.inverse(latent), codec.mean(image), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(codec.decode(latent), codec.network.decode(codec.mean(image)).sample, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        # Built, each of these would ask for terabytes or for months.
        ({"block_out_channels": [2**20, 2**20]}, r"has shape \(8, 1, 3, 3\), not \(1048576, 1, 3, 3\)"),
        ({"block_out_channels": [2**40, 2**40]}, "can't be used"),
        ({"latent_channels": 2**31}, "can't be used"),
        ({"layers_per_block": 10**9}, "1000000000 layers for"),
        ({"block_out_channels": [8] * 10**4}, "weights"),
        ({"layers_per_block": 2}, "weights are missing"),
        ({"layers_per_block": "2"}, "2 layers"),
        ({"block_out_channels": None}, "None channels"),
        ({"block_out_channels": ["a", "b"]}, "can't be used"),
        ({"norm_num_groups": 3}, "can't be used"),
        ({"norm_num_groups": 0}, "can't be used"),
        ({"down_block_types": ["Nothing", "Nothing"]}, "can't be used"),
        ({"act_fn": 3}, "can't be used"),
    ],
)
def test_settings_of_another_autoencoder_are_refused_before_anything_is_allocated(stored, changes, message):
    refused({**stored, "config": {**stored["config"], **changes}}, message, start="its autoencoder can't be used")


def test_weights_of_another_autoencoder_are_refused(stored):
    state, name = stored["weights"], "decoder.conv_in.bias"
    for weights, message in (
        ({key: value for key, value in state.items() if key != name}, f"1 weights are missing, the first '{name}'"),
        ({**state, "more": torch.zeros(1)}, "1 weights are unknown, the first 'more'"),
        ({**state, name: torch.zeros(7)}, rf"'{name}' has shape \(7,\), not \(8,\)"),
        ({**state, name: torch.zeros(1).expand(8)}, f"'{name}' is not stored whole"),
        ({**state, name: torch.zeros(8).to_sparse()}, f"'{name}' is not stored whole"),
    ):
        refused({**stored, "weights": weights}, message, start="its autoencoder can't be used")
    refused({**stored, "weights": {**state, name: 3}}, "the weights of its autoencoder are missing or hold something else")


@pytest.mark.parametrize("value", ["missing", None, 1.5, [1, 2], {}, {1: 2}], ids=str)
@pytest.mark.parametrize("part", ["class", "config", "weights", "channel_map"])
def test_a_part_that_is_missing_or_something_else_is_refused(stored, part, value):
    record = {**stored, part: value}
    if value == "missing":
        del record[part]
    message = {
        "class": "its codec",
        "config": "its autoencoder",
        "weights": "its autoencoder",
        "channel_map": "its channel map",
    }
    refused(record, message[part])


def test_a_codec_that_nobody_knows_is_named():
    refused({"class": "klx"}, "unknown codec 'klx'. Did you mean 'kl'")
    refused(None, "its codec is missing")


def refused(record, message, start=""):
    with pytest.raises(UserError, match=message) as caught:
        codec_from_record(record)
    assert str(caught.value).startswith(start)
    assert len(str(caught.value).splitlines()) == 1
