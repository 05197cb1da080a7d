"""Checkpoints that can't be used are refused in one line that says what they are."""

import io
import pickle
import zipfile

import pytest
import torch

from ldm_privacy.errors import UserError
from ldm_privacy.training.checkpoint import FORMAT, RECORD, load_checkpoint


def whole(tmp_path, **record):
    path = tmp_path / "whole.ckpt"
    torch.save({"state_dict": {"w": torch.zeros(1000)}, RECORD: {"format": FORMAT, "stage": "denoiser", **record}}, path)
    return path


def refused(path, message, **options):
    with pytest.raises(UserError, match=message) as caught:
        load_checkpoint(path, **options)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_whole_one_is_read(tmp_path):
    assert load_checkpoint(whole(tmp_path))["state_dict"]["w"].shape == (1000,)


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
