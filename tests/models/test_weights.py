"""The only ways from a file into a network: what doesn't fit is refused with its number, and nothing is changed."""

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import ldm_privacy
from ldm_privacy.errors import UserError
from ldm_privacy.models.weights import built_with, load_weights, read_safetensors

NAMES = ("0.weight", "0.bias", "1.weight", "1.bias")


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))


def without(state, *names):
    return {name: value for name, value in state.items() if name not in names}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: {}, "4 weights are missing, the first '0.weight'"),
        (lambda state: without(state, "0.bias", "1.bias"), "2 weights are missing, the first '0.bias'"),
        (lambda state: {**state, "a": torch.ones(1), "b": torch.ones(1)}, "2 weights are unknown, the first 'a'"),
        (
            lambda state: {**state, "0.bias": torch.ones(4), "1.bias": torch.ones(1, 1)},
            r"2 weights don't match, the first '0.bias' has shape \(4,\), not \(3,\)",
        ),
        # Quantised weights under the plain names: copied, they would be rounded garbage of the right shape.
        (
            lambda state: {**state, "1.weight": torch.ones(1, 3, dtype=torch.int8)},
            "1 weights don't match, the first '1.weight' holds torch.int8, not torch.float32",
        ),
        (lambda state: {**state, "1.weight": [1, 2, 3]}, "'1.weight' is no tensor"),
        (
            lambda state: {**without(state, "0.bias"), "1.bias": torch.ones(2), "a": torch.ones(1)},
            r"1 weights are missing, the first '0.bias'; 1 weights are unknown, the first 'a'; 1 weights don't match",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_its_number_and_first_name(change, message):
    there = network()
    before = {name: value.clone() for name, value in there.state_dict().items()}
    with pytest.raises(UserError, match=rf"^here\.bin: the weights don't fit the network \(.*{message}") as caught:
        load_weights(there, change(network().state_dict()), "here.bin")
    assert len(str(caught.value).splitlines()) == 1
    assert all(torch.equal(value, before[name]) for name, value in there.state_dict().items())
    if all(isinstance(each, torch.Tensor) for each in change(before).values()):
        with pytest.raises(UserError, match=message):
            built_with(network, change(before), "it")


def test_what_fits_is_loaded_in_any_order_and_precision():
    stored = {name: value.half() for name, value in reversed(network().state_dict().items())}
    there = network()
    load_weights(there, stored, "here")
    assert all(torch.equal(there.state_dict()[name], stored[name].float()) for name in NAMES)


def test_a_file_that_is_no_safetensors_is_named(tmp_path):
    file = tmp_path / "weights.safetensors"
    save_file({"a": torch.arange(1000.0)}, file)
    assert torch.equal(read_safetensors(file)["a"], torch.arange(1000.0))
    whole = file.read_bytes()
    for content in (whole[:500], whole[:4], b"", b"\x80\x02}q\x00."):
        file.write_bytes(content)
        with pytest.raises(UserError, match=r"weights\.safetensors: can't be read") as caught:
            read_safetensors(file)
        assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(UserError, match="nothing"):
        read_safetensors(tmp_path / "nothing.safetensors")


def test_no_file_of_the_package_has_a_way_of_its_own_into_a_network():
    root, ways = (
        Path(ldm_privacy.__file__).parent,
        re.compile(r"(?<!Tokenizer\.)from_pretrained\(|network\.load_state_dict\(|load_file\(|torch\.load\("),
    )
    found = {str(path.relative_to(root)) for path in root.rglob("*.py") if ways.search(path.read_text())}
    assert found == {"models/weights.py", "targets/record.py"}
