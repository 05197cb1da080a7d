"""Checkpoints that can't be used are refused in one line that says what they are."""

import io
import pickle
import zipfile

import pytest
import torch

from ldm_privacy.errors import UserError
from ldm_privacy.training.checkpoint import FORMAT, RECORD, epochs_in, load_checkpoint, load_weights


def contents(**record):
    """The smallest checkpoint of the denoiser."""
    return {
        "state_dict": {"w": torch.zeros(1000)},
        "loops": {"fit_loop": {"epoch_progress": {"current": {"processed": 3}}}},
        RECORD: {
            "format": FORMAT,
            "stage": "denoiser",
            "config": "seed: 0",
            "split": {**{f"{name}_index": torch.arange(2) for name in ("member", "heldout", "public")}, "num_rows": 9},
            "content_hash": None,
            "autoencoder_config": {"latent_channels": 4},
            "autoencoder": {"w": torch.zeros(3)},
            "normalisation": {"mode": "none", "shift": torch.zeros(4, 1, 1), "scale": torch.ones(4, 1, 1)},
            **record,
        },
    }


def whole(tmp_path, **record):
    path = tmp_path / "whole.ckpt"
    torch.save(contents(**record), path)
    return path


def refused(path, message, **options):
    with pytest.raises(UserError, match=message) as caught:
        load_checkpoint(path, **options)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_whole_one_is_read(tmp_path):
    checkpoint = load_checkpoint(whole(tmp_path))
    assert checkpoint["state_dict"]["w"].shape == (1000,)
    assert epochs_in(checkpoint) == 3


def test_a_missing_one_lists_those_beside_it(tmp_path):
    whole(tmp_path)
    refused(tmp_path / "nothing.ckpt", r"does not exist.*whole\.ckpt")
    refused(tmp_path, "is a folder")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_one_is_refused(tmp_path, share):
    data = whole(tmp_path).read_bytes()
    path = tmp_path / "cut.ckpt"
    path.write_bytes(data[: int(share * len(data))])
    refused(path, "truncated or no checkpoint|refused")


class Bomb:
    def __reduce__(self):
        return (open, ("bomb-went-off", "w"))


@pytest.mark.parametrize("how", ["plain pickle", "torch.save"])
def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(tmp_path, monkeypatch, how):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bomb.ckpt"
    if how == "torch.save":
        torch.save({"state_dict": Bomb()}, path)
    else:
        path.write_bytes(pickle.dumps({"state_dict": Bomb()}))
    refused(path, "would run code")
    assert not (tmp_path / "bomb-went-off").exists()


def test_one_of_another_program_is_refused(tmp_path):
    path = tmp_path / "other.ckpt"
    torch.save({"state_dict": {}}, path)
    refused(path, "not a checkpoint of this program")
    torch.save([1, 2], path)
    refused(path, "not a checkpoint of this program")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("hello.txt", "hello")
    path.write_bytes(buffer.getvalue())
    refused(path, "truncated or no checkpoint")


@pytest.mark.parametrize("content", [b"junk", b"junk\n", b"\x00\x01\x02", b"{}", b"PK\x03\x04", bytes(range(256))])
def test_bytes_that_are_no_checkpoint_are_refused(tmp_path, content):
    path = tmp_path / "junk.ckpt"
    path.write_bytes(content)
    refused(path, "truncated or no checkpoint|would run code")


def test_one_of_the_other_stage_is_refused(tmp_path):
    refused(whole(tmp_path, stage="autoencoder"), "from the autoencoder stage")


NEEDED = {
    (RECORD, "stage"): "its stage",
    (RECORD, "config"): "its config",
    (RECORD, "split"): "its split",
    (RECORD, "split", "member_index"): "its split",
    (RECORD, "split", "num_rows"): "its split",
    (RECORD, "autoencoder_config"): "autoencoder_config",
    (RECORD, "autoencoder_config", "latent_channels"): "its normalisation",
    (RECORD, "autoencoder"): "the weights of its autoencoder",
    (RECORD, "normalisation"): "its normalisation",
    (RECORD, "normalisation", "mode"): "its normalisation",
    (RECORD, "normalisation", "scale"): "its normalisation",
    ("state_dict",): "its weights",
    ("loops",): r"epochs \(loops\)",
    ("loops", "fit_loop"): r"epochs \(loops\)",
    ("loops", "fit_loop", "epoch_progress", "current", "processed"): r"epochs \(loops\)",
}


@pytest.mark.parametrize("value", ["missing", None, 1.5, [1, 2], b"x", {1: 2}])
@pytest.mark.parametrize("place", list(NEEDED), ids=".".join)
def test_a_part_that_is_missing_or_something_else_is_named(tmp_path, place, value):
    checkpoint = contents()
    *way, last = place
    node = checkpoint
    for name in way:
        node = node[name]
    if value == "missing":
        del node[last]
    else:
        node[last] = value
    path = tmp_path / "damaged.ckpt"
    torch.save(checkpoint, path)
    if place == (RECORD, "autoencoder_config") and value == {1: 2}:
        refused(path, "its normalisation")  # its settings lack the channels that the normalisation must have
    else:
        refused(path, NEEDED[place])


@pytest.mark.parametrize(
    ("name", "value"),
    [("scale", torch.ones(3, 1, 1)), ("scale", torch.full((4, 1, 1), torch.nan)), ("shift", torch.ones(4).int())],
)
def test_a_normalisation_that_does_not_fit_the_latents_is_refused(tmp_path, name, value):
    normalisation = {**contents()[RECORD]["normalisation"], name: value}
    refused(whole(tmp_path, normalisation=normalisation), "its normalisation")


def test_the_autoencoder_stage_needs_no_latents(tmp_path):
    record = dict.fromkeys(("autoencoder", "autoencoder_config", "normalisation"))
    path = whole(tmp_path, stage="autoencoder", **record)
    assert load_checkpoint(path, stage="autoencoder")[RECORD]["stage"] == "autoencoder"


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, r"2 weights are missing, the first 'weight'"),
        ({"weight": torch.ones(2, 3), "bias": torch.ones(2), "more": torch.ones(1)}, "1 weights are unknown, the first 'more'"),
        ({"weight": torch.ones(3, 2), "bias": torch.ones(2)}, r"'weight' has shape \(3, 2\), not \(2, 3\)"),
    ],
)
def test_weights_of_another_network_are_refused(state, message):
    layer = torch.nn.Linear(3, 2)
    before = layer.weight.clone()
    with pytest.raises(UserError, match=message) as caught:
        load_weights(layer, {"state_dict": state})
    assert "\n" not in str(caught.value)
    assert torch.equal(layer.weight, before)
    load_weights(layer, {"state_dict": {"weight": torch.ones(2, 3), "bias": torch.ones(2)}})
    assert torch.equal(layer.weight, torch.ones(2, 3))
