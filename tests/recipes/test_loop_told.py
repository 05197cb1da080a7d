"""What a watched network is told."""

import logging

import torch

from ldm_privacy.recipes.loop.told import Told


def encoded(texts):
    return {"encoder_hidden_states": torch.ones(len(texts), 4, 8)}


def test_captions_that_are_encoded_again_name_the_watchs_own_argument(caplog):
    captions = [f"a {number}" for number in range(40)]
    with caplog.at_level(logging.WARNING, "ldm_privacy"):
        Told(20, 20, captions=captions, text_encoder=encoded)
        assert not caplog.records
        Told(20, 20, captions=captions, text_encoder=encoded, memory_mib=0.001)
    assert "40 captions don't fit into memory_mib (0.001 MiB; all take " in caplog.records[-1].getMessage()
