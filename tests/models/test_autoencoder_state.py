"""The autoencoder that a checkpoint holds: rebuilt from its settings and weights, or refused before anything is allocated."""

import pytest
import torch

from ldm_privacy.errors import UserError
from ldm_privacy.models import kl_autoencoder
from ldm_privacy.models.autoencoder import autoencoder_from_state


@pytest.fixture(scope="module")
def stored():
    autoencoder = kl_autoencoder(image_channels=1, resolution=8, block_out_channels=(8, 8), norm_num_groups=4)
    settings = {key: value for key, value in autoencoder.config.items() if not key.startswith("_")}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in settings.items()}, autoencoder.state_dict()


def test_it_is_the_stored_one(stored):
    autoencoder = autoencoder_from_state(*stored)
    assert all(torch.equal(value, stored[1][name]) for name, value in autoencoder.state_dict().items())
    assert not any(parameter.requires_grad or parameter.is_meta for parameter in autoencoder.parameters())
    assert not autoencoder.training


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        # Built, each of these would ask for terabytes or for months.
        ({"block_out_channels": [2**20, 2**20]}, r"has shape \(8, 1, 3, 3\), not \(1048576, 1, 3, 3\)"),
        ({"block_out_channels": [2**40, 2**40]}, "can't be used"),
        ({"latent_channels": 2**31}, "can't be used"),
        ({"layers_per_block": 10**9}, "1000000000 layers each for"),
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
    ids=str,
)
def test_settings_of_another_autoencoder_are_refused_before_anything_is_allocated(stored, changes, message):
    settings, state = stored
    refused({**settings, **changes}, state, message)


def test_weights_of_another_autoencoder_are_refused(stored):
    settings, state = stored
    name = "decoder.conv_in.bias"
    refused(settings, {key: value for key, value in state.items() if key != name}, f"1 weights are missing, the first '{name}'")
    refused(settings, {**state, "more": torch.zeros(1)}, "1 weights are unknown, the first 'more'")
    refused(settings, {**state, name: torch.zeros(7)}, rf"'{name}' has shape \(7,\), not \(8,\)")
    refused(settings, {**state, name: torch.zeros(1).expand(8)}, f"'{name}' is not stored whole")
    refused(settings, {**state, name: torch.zeros(8).to_sparse()}, f"'{name}' is not stored whole")


def refused(settings, state, message):
    with pytest.raises(UserError, match=message) as caught:
        autoencoder_from_state(settings, state)
    assert str(caught.value).startswith("ckpt: the autoencoder in the checkpoint can't be used")
    assert len(str(caught.value).splitlines()) == 1
