"""Writing checkpoints: whole or not at all, whatever happens in between."""

import errno
import os

import pytest

from ldm_privacy.errors import UserError
from ldm_privacy.runs.checkpoint import keep_copy, save_checkpoint
from tests.disk import Disk


def test_a_kill_between_the_copy_and_the_checkpoint_harms_neither(tmp_path, monkeypatch):
    disk, last, copy = Disk(), tmp_path / "last.ckpt", tmp_path / "copy.ckpt"
    disk.content = b"old"
    save_checkpoint(disk, last)
    disk.content = b"new"

    class Killed(BaseException):
        pass

    def kill(source, target):
        if target == last:
            raise Killed
        source.rename(target)

    with monkeypatch.context() as patch:
        patch.setattr("ldm_privacy.runs.checkpoint.os.replace", kill)
        with pytest.raises(Killed):
            save_checkpoint(disk, last, copies=[copy])
    assert (last.read_bytes(), copy.read_bytes()) == (b"old", b"new")
    # What the kill left behind is another name of the copy's file: the next checkpoint must not write into it.
    disk.content = b"ne2"
    save_checkpoint(disk, last)
    assert (last.read_bytes(), copy.read_bytes()) == (b"ne2", b"new")


@pytest.mark.parametrize(
    ("number", "advice"), [(errno.ENOSPC, "Free some space. "), (errno.EDQUOT, "Free some space. "), (errno.EIO, "")]
)
def test_a_failure_leaves_the_previous_checkpoint_whole_and_only_a_full_disk_is_said_to_be_full(tmp_path, number, advice):
    class Failing:
        def save_checkpoint(self, path):
            path.write_bytes(b"half of")
            raise OSError(number, os.strerror(number))

    path = tmp_path / "last.ckpt"
    path.write_bytes(b"the old one")
    with pytest.raises(UserError) as caught:
        save_checkpoint(Failing(), path)
    reason = f"{path}: the checkpoint can't be written ({os.strerror(number)}). "
    assert str(caught.value) == f"{reason}{advice}The checkpoint from before is whole: {path}."
    assert path.read_bytes() == b"the old one"
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_the_kept_copy_outlives_the_next_checkpoint(tmp_path):
    class Disk:
        def save_checkpoint(self, path):
            path.write_bytes(b"new")

    path, copy = tmp_path / "last.ckpt", tmp_path / "before-onset.ckpt"
    path.write_bytes(b"old")
    keep_copy(path, copy)
    save_checkpoint(Disk(), path)
    assert (path.read_bytes(), copy.read_bytes()) == (b"new", b"old")
