"""The key in front of a message, and the one line of a library's error."""

from dataclasses import is_dataclass
from typing import get_origin, get_type_hints

import pytest

from ldm_privacy.config.schema import Config, TargetConfig
from ldm_privacy.errors import FIRST_KEYS, reason_of, under


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("keep_fraction: 0 keeps nothing", "audit.masks.x.keep_fraction: 0 keeps nothing"),
        ("audit.masks.x.seed: -1 is negative", "audit.masks.x.seed: -1 is negative"),
        ("data.resolution: 9 is odd", "data.resolution: 9 is odd"),
        ("weights.safetensors: can't be read", "audit.masks.x: weights.safetensors: can't be read"),
        ("no weights", "audit.masks.x: no weights"),
    ],
)
def test_a_message_gets_the_key_that_it_lacks(message, said):
    assert under("audit.masks.x", message, ["keep_fraction"]) == said


def test_keys_with_a_dot_are_known_by_the_configs_sections():
    types = get_type_hints(Config) | get_type_hints(TargetConfig)
    assert {*FIRST_KEYS} == {name for name, each in types.items() if is_dataclass(each) or get_origin(each) is dict}


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("\n  first. \nsecond"), "first"),
        (EOFError(), "EOFError"),
        (OSError("\n"), "OSError"),
    ],
)
def test_an_error_is_told_in_one_line_even_without_words(error, line):
    assert reason_of(error) == line
