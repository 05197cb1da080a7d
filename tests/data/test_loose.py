"""A folder of images beside the data of a run: what can be read, and what is known of it."""

import numpy as np
import PIL.Image
import pytest
import torch

from ldm_privacy.data.loose import loose_images
from ldm_privacy.errors import UserError


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(np.full((12, 10), value, np.uint8)).save(path)


def test_what_cant_be_read_is_left_out_and_told(tmp_path):
    for name, value in (("a.png", 10), ("c.png", 30)):
        write(tmp_path / name, value)
    (tmp_path / "b.png").write_bytes(b"no image")
    found = loose_images(str(tmp_path), resolution=8, channels=1)
    assert found.pixels.shape == (2, 1, 8, 8)
    assert found.pixels[:, 0, 0, 0].tolist() == [10, 30]
    assert [name.rsplit("/", 1)[1] for name in found.names] == ["a.png", "c.png"]
    assert len(found.unreadable) == 1
    assert "b.png" in found.unreadable[0]
    assert found.captions is found.classes is None
    assert found.sizes == [(10, 12), (10, 12)]


def test_classes_are_folders_and_captions_are_in_the_metadata(tmp_path):
    for name in ("cat/1.png", "dog/1.png"):
        write(tmp_path / name, 20)
    assert loose_images(str(tmp_path), resolution=8, channels=3).classes == ["cat", "dog"]
    (tmp_path / "metadata.csv").write_text("file_name,caption\ndog/1.png,a dog\ncat/1.png,\n")
    found = loose_images(str(tmp_path), resolution=8, channels=3)
    assert found.captions == [[], ["a dog"]]
    assert torch.equal(found.pixels, torch.full((2, 3, 8, 8), 20, dtype=torch.uint8))


def test_a_folder_without_a_readable_image_is_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"none of its 1 images can be read .*a\.png"):
        loose_images(str(tmp_path), resolution=8, channels=1)
