"""The only ways from a file into a network: what doesn't fit is refused with its number, and nothing is changed."""

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import ldm_privacy
from ldm_privacy.errors import UserError
from ldm_privacy.models.weights import built_with, header_of, load_weights, read_safetensors

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


class Positions(nn.Module):
    """A weight, and what no file holds."""

    def __init__(self, size: int = 3):
        super().__init__()
        self.linear = nn.Linear(size, 2)
        self.register_buffer("position", torch.arange(float(size)), persistent=False)


def test_weights_are_held_once_and_what_no_file_holds_is_computed():
    state = Positions().state_dict()
    before = torch.random.get_rng_state()
    built = built_with(Positions, state, "it")
    assert torch.equal(torch.random.get_rng_state(), before), "no weight is drawn that a file replaces"
    assert built.linear.weight.data_ptr() == state["linear.weight"].data_ptr()
    assert built.linear.weight.requires_grad
    assert torch.equal(built.position, torch.arange(3.0))
    half = built_with(Positions, {name: value.half() for name, value in state.items()}, "it")
    assert half.linear.weight.dtype == torch.float32
    half = built_with(Positions, dict(state), "it", dtype=torch.bfloat16)
    assert half.linear.weight.dtype == torch.bfloat16
    assert torch.equal(Positions().position, torch.arange(3.0)), "modules that are made later have memory"
    assert not Positions().linear.weight.is_meta


def test_what_becomes_of_a_file_touches_nothing_that_was_read(tmp_path):
    file = tmp_path / "weights.safetensors"
    dtypes = (torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.float8_e4m3fn)
    stored = {f"part.{each}": torch.arange(6).reshape(2, 3).to(each) for each in dtypes}
    stored |= {"scalar": torch.tensor(2.5), "empty": torch.ones(0, 3), "part.": torch.ones(1)}
    save_file(stored, file, metadata={"said": "it"})
    read = read_safetensors(file)
    file.write_bytes(bytes(file.stat().st_size))
    assert read.keys() == stored.keys()
    assert all(
        torch.equal(read[name].float(), value.float()) and read[name].dtype == value.dtype for name, value in stored.items()
    )


def test_parts_of_a_file_and_its_header(tmp_path):
    file = tmp_path / "weights.safetensors"
    save_file({"a.x": torch.ones(2), "b.x": torch.zeros(2), "ab": torch.ones(1)}, file, metadata={"said": "it"})
    assert read_safetensors(file, prefixes=("a.",)).keys() == {"a.x"}
    assert read_safetensors(file, prefixes=("a.", "b.")).keys() == {"a.x", "b.x"}
    names, remarks = header_of(file)
    assert (sorted(names), remarks) == (["a.x", "ab", "b.x"], {"said": "it"})
