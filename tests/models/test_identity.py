"""The codec of pixel space."""

import pytest
import torch

from ldm_privacy.errors import UserError
from ldm_privacy.models.codec import codec_from_record
from ldm_privacy.models.identity import IdentityCodec


def test_latents_are_the_images_and_there_is_no_decoder():
    codec = IdentityCodec(image_channels=3)
    image = torch.rand(2, 3, 6, 6)
    assert torch.equal(codec.encode(image), image)
    assert torch.equal(codec.decode(image), image)
    assert codec.latent_shape(3, 6) == (3, 6, 6)
    assert codec.network is None
    assert codec.weights() == {}
    assert str(codec) == "identity (pixel space)"


def test_its_record_is_plain_and_gives_it_back():
    codec = codec_from_record(IdentityCodec(image_channels=3).record())
    assert type(codec) is IdentityCodec
    assert codec.record() == {"class": "identity", "image_channels": 3}


@pytest.mark.parametrize("record", [{}, {"image_channels": None}, {"image_channels": "many"}])
def test_a_damaged_record_is_refused(record):
    with pytest.raises(UserError, match="its codec 'identity' is damaged"):
        codec_from_record({"class": "identity", **record})
