"""Any image to a tensor: modes, orientation, geometry, number ranges, unreadable cells."""

import io

import numpy as np
import PIL.Image
import pytest
import torch

from ldm_privacy.data.images import decode_image, to_float, to_pixels, to_uint8
from ldm_privacy.errors import UserError


def pixel(image: PIL.Image.Image, channels: int = 3) -> list[int]:
    """The one value of an image of one colour."""
    values = to_pixels(image, resolution=4, channels=channels).flatten(1)
    assert (values == values[:, :1]).all()
    return values[:, 0].tolist()


def test_every_byte_survives_the_float_range():
    pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    images = to_float(pixels)
    assert images.dtype == torch.float32
    assert (images.min().item(), images.max().item()) == (-1.0, 1.0)
    assert torch.equal(to_uint8(images), pixels)
    assert to_uint8(torch.tensor([-3.0, 3.0])).tolist() == [0, 255]


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("1", 1, [255, 255, 255]),
        ("L", 77, [77, 77, 77]),
        ("LA", (10, 0), [255, 255, 255]),
        ("LA", (10, 255), [10, 10, 10]),
        ("RGB", (10, 20, 30), [10, 20, 30]),
        ("RGBA", (10, 20, 30, 255), [10, 20, 30]),
        ("RGBA", (10, 20, 30, 0), [255, 255, 255]),
        ("RGBA", (0, 0, 0, 51), [204, 204, 204]),
        ("CMYK", (255, 0, 0, 0), [0, 255, 255]),
        ("YCbCr", (100, 128, 128), [100, 100, 100]),
        ("I;16", 65535, [255, 255, 255]),
        ("I;16", 100 * 257, [100, 100, 100]),
        ("I", 100 * 257, [100, 100, 100]),
        ("F", 0.2, [51, 51, 51]),
    ],
)
def test_modes(mode, colour, expected):
    assert pixel(PIL.Image.new(mode, (8, 8), colour)) == expected


def test_palette_with_and_without_a_transparent_entry(tmp_path):
    image = PIL.Image.new("P", (8, 8), 1)
    image.putpalette([255, 0, 0, 0, 0, 255])
    assert pixel(image) == [0, 0, 255]
    image.save(tmp_path / "a.png", transparency=1)
    with PIL.Image.open(tmp_path / "a.png") as stored:
        assert stored.mode == "P"
        assert pixel(stored) == [255, 255, 255]


def test_transparent_colour_of_a_file_without_alpha_becomes_white(tmp_path):
    PIL.Image.new("RGB", (8, 8), (1, 2, 3)).save(tmp_path / "a.png", transparency=(1, 2, 3))
    with PIL.Image.open(tmp_path / "a.png") as stored:
        assert stored.mode == "RGB"
        assert pixel(stored) == [255, 255, 255]


def test_colour_to_grey_is_itu_r_601():
    for colour, weight in (((255, 0, 0), 0.299), ((0, 255, 0), 0.587), ((0, 0, 255), 0.114)):
        assert abs(pixel(PIL.Image.new("RGB", (4, 4), colour), channels=1)[0] - 255 * weight) <= 1


def test_sixteen_bit_file_keeps_its_scale_whatever_its_brightest_pixel(tmp_path):
    for top in (257, 40 * 257):
        PIL.Image.fromarray(np.full((4, 4), top, dtype=np.uint16)).save(tmp_path / "a.png")
        with PIL.Image.open(tmp_path / "a.png") as stored:
            assert pixel(stored, channels=1) == [top // 257]


@pytest.mark.parametrize(("mode", "value"), [("F", 3.5), ("F", float("nan")), ("I", 70000), ("I", -1)])
def test_values_of_unknown_range_are_refused(mode, value):
    with pytest.raises(ValueError, match=r"data\.source\.value_range|not finite"):
        to_pixels(PIL.Image.new(mode, (4, 4), value), resolution=4, channels=1)


def test_exif_orientation_is_applied(tmp_path, random_image):
    upright = random_image(0, (8, 8))
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # "rotate a quarter to the right to see it upright"
    upright.transpose(PIL.Image.Transpose.ROTATE_90).save(tmp_path / "a.png", exif=exif)
    with PIL.Image.open(tmp_path / "a.png") as stored:
        seen = to_pixels(stored, resolution=8, channels=3)
    assert torch.equal(seen, to_pixels(upright, resolution=8, channels=3))


def test_an_image_of_the_right_size_keeps_every_byte(random_image):
    image = random_image(1, (8, 8))
    expected = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    assert torch.equal(to_pixels(image, resolution=8, channels=3), expected)


@pytest.mark.parametrize("size", [(32, 16), (16, 32), (24, 16), (16, 16)])
def test_geometry_is_resize_of_the_shorter_side_then_centre_crop(random_image, size):
    image = random_image(2, size)
    small = image.resize((size[0] // 2, size[1] // 2), PIL.Image.Resampling.BICUBIC)
    left, top = (small.width - 8) // 2, (small.height - 8) // 2
    expected = torch.from_numpy(np.array(small.crop((left, top, left + 8, top + 8)))).permute(2, 0, 1)
    # Pillow's fixed-point weights may round the last bit differently when the window is shifted.
    assert (to_pixels(image, resolution=8, channels=3).int() - expected.int()).abs().max() <= 1


def test_shrinking_is_antialiased():
    board = PIL.Image.fromarray(((np.indices((64, 64)).sum(0) % 2) * 255).astype(np.uint8))
    shrunk = to_pixels(board, resolution=8, channels=1)
    # Without averaging every value would be 0 or 255. The cubic is even, so the mean of the board is met inside.
    assert (shrunk[:, 1:-1, 1:-1].int() - 128).abs().max() <= 1


@pytest.mark.parametrize("size", [(5, 3), (3, 5), (1, 900), (900, 1), (7, 7)])
def test_any_size_gives_the_wanted_shape(random_image, size):
    assert to_pixels(random_image(3, size), resolution=8, channels=1).shape == (1, 8, 8)


def broken_cells(png_bytes: bytes) -> dict[str, object]:
    return {
        "truncated": {"bytes": png_bytes[: len(png_bytes) // 2], "path": None},
        "no image": {"bytes": b"hello", "path": None},
        "empty": {"bytes": b"", "path": None},
        "null": None,
        "nothing": {"bytes": None, "path": None},
        "missing file": {"bytes": None, "path": "/no/such/cat.png"},
    }


@pytest.mark.parametrize("kind", ["truncated", "no image", "empty", "null", "nothing", "missing file"])
def test_unreadable_cell_names_row_and_column(kind, png, random_image):
    cell = broken_cells(png(random_image(4, (40, 40))))[kind]
    with pytest.raises(UserError, match=r"row 41, column 'photo'.*take the row out") as caught:
        decode_image(cell, resolution=4, channels=3, row=41, column="photo")
    message = str(caught.value)
    assert "\n" not in message
    assert "0x" not in message
    assert kind != "missing file" or "/no/such/cat.png" in message


def test_a_cell_may_name_a_file_instead_of_holding_bytes(tmp_path, random_image, png):
    image = random_image(5, (4, 4))
    image.save(tmp_path / "a.png")
    cells = [{"bytes": None, "path": str(tmp_path / "a.png")}, {"bytes": png(image), "path": "elsewhere.png"}]
    first, second = (decode_image(cell, resolution=4, channels=3, row=0, column="image") for cell in cells)
    assert torch.equal(first, second)


def test_jpeg_and_gif_are_read(random_image):
    for form in ("JPEG", "GIF"):
        buffer = io.BytesIO()
        PIL.Image.new("RGB", (16, 16), (200, 30, 40)).save(buffer, format=form)
        cell = {"bytes": buffer.getvalue(), "path": None}
        found = decode_image(cell, resolution=8, channels=3, row=0, column="image").float().mean((1, 2))
        assert (found - torch.tensor([200.0, 30.0, 40.0])).abs().max() < 4


@pytest.mark.parametrize("size", [(9, 6), (8, 6), (6, 9)])
def test_where_the_shorter_side_has_the_size_pixels_are_kept(size):
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    row, column = (size[1] - 6) // 2, (size[0] - 6) // 2
    kept = to_pixels(PIL.Image.fromarray(pixels), resolution=6, channels=3)
    assert torch.equal(kept, torch.from_numpy(pixels[row : row + 6, column : column + 6]).permute(2, 0, 1))
