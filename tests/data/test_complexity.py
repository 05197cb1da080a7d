"""Complexity: the size of a whole PNG file, of the image alone."""

import io
import math

import PIL.Image
import pytest
import torch

from ldm_privacy.data.complexity import image_complexity
from ldm_privacy.data.images import to_float


def pixels(samples, channels, side, seed=0):
    """uint8: noise of fewer and fewer grey levels, so that every image is simpler than the one before."""
    noise = torch.rand(samples, channels, side, side, generator=torch.Generator().manual_seed(seed))
    levels = 2.0 ** torch.arange(6, 6 - samples, -1)[:, None, None, None]
    return ((noise * levels).floor() * (256 / levels)).to(torch.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_it_is_the_log_of_the_bytes_of_a_file_that_holds_the_image(channels, tmp_path):
    given = pixels(6, channels, 16)
    complexity = image_complexity(to_float(given))
    assert (complexity.dtype, complexity.shape) == (torch.float64, (6,))
    assert (complexity[1:] < complexity[:-1]).all()
    for image, found in zip(given, complexity):
        path = tmp_path / "image.png"
        array = image.permute(1, 2, 0).numpy()
        PIL.Image.fromarray(array[..., 0] if channels == 1 else array).save(path, compress_level=6)
        assert float(found) == math.log(path.stat().st_size)


def test_grey_channels_of_any_number_are_planes_of_one_grey_image():
    given = to_float(pixels(3, 5, 8))
    assert torch.equal(image_complexity(given), image_complexity(given.reshape(3, 1, 40, 8)))


def test_nothing_is_lost(monkeypatch):
    """The file that is counted decodes to the image itself, to the last grey level."""
    given, files = pixels(3, 3, 9), []
    monkeypatch.setattr(io, "BytesIO", lambda make=io.BytesIO: files.append(make()) or files[-1])
    image_complexity(to_float(given))
    for image, file in zip(given, files):
        decoded = PIL.Image.open(file)
        assert decoded.format == "PNG"
        assert torch.equal(torch.tensor(list(decoded.getdata())).reshape(9, 9, 3).permute(2, 0, 1), image)


def test_an_image_has_the_same_number_in_any_batch():
    given = to_float(pixels(8, 3, 12))
    whole = image_complexity(given)
    order = torch.tensor([5, 0, 7, 3])
    assert torch.equal(image_complexity(given[order]), whole[order])
    assert torch.equal(torch.cat([image_complexity(each) for each in given.split(1)]), whole)
    assert torch.equal(image_complexity(given.double() * 1.0), whole)
    assert image_complexity(given[:0]).shape == (0,)


def test_size_counts_and_values_outside_the_range_are_clipped():
    small, large = (image_complexity(to_float(pixels(1, 1, side))) for side in (8, 16))
    assert small < large
    given = to_float(pixels(2, 1, 8))
    beyond, clipped = (torch.where(given >= 0.9, value, given) for value in (7.0, 1.0))
    assert torch.equal(image_complexity(beyond), image_complexity(clipped))
