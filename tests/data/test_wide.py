"""Images of more than 8 bits: scaled as their type or the user says, and never dark without a word."""

import io
import struct
import zlib

import numpy as np
import PIL.Image
import pytest
import torch

from ldm_privacy.config.check import check_component
from ldm_privacy.data.folder import Folder
from ldm_privacy.data.images import to_pixels
from ldm_privacy.data.module import ImageData
from ldm_privacy.data.wide import WideImages
from ldm_privacy.errors import UserError
from ldm_privacy.registry import IMAGE_SOURCES

ROWS = 24


def pixels(image, limits=None, channels=1):
    return to_pixels(image, resolution=image.width, channels=channels, wide=WideImages(limits))[0]


@pytest.fixture
def images(tmp_path):
    """A function (type, smallest, largest, ending) -> a folder of random images that reach both values, and their values."""

    def make(dtype, low, high, ending="png"):
        share = np.random.default_rng(0).integers(0, 1000, (ROWS, 6, 6), endpoint=True) / 1000
        values = (low + (high - low) * share).astype(dtype)
        values[5, 0, 0], values[9, 0, 0] = low, high
        for row, each in enumerate(values):
            PIL.Image.fromarray(each).save(tmp_path / f"{row:02d}.{ending}")
        return tmp_path, values

    return make


def data_of(folder, **options):
    return ImageData(Folder(path=str(folder), **options), resolution=6, channels=1, num_members=12, num_heldout=12)


def notes(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "ldm_privacy"]


@pytest.mark.parametrize(
    ("dtype", "low", "high", "ending", "darkest", "brightest", "guess"),
    [
        (np.uint16, 32, 4081, "png", 0, 16, " such as [0,4095]"),
        (np.uint16, 0, 1000, "tif", 0, 4, " such as [0,1023]"),
        (np.int32, 2, 245, "tif", 0, 1, " such as [0,255]"),
        (np.float32, 0, 0.0625, "tif", 0, 16, ""),
        (np.uint16, 31768, 35768, "png", 124, 139, ""),
    ],
    ids=["12 bits", "10 bits", "8 bits in 32", "floats", "in the middle"],
)
def test_a_small_range_in_a_wide_type_is_said_with_file_range_and_key(
    images, caplog, dtype, low, high, ending, darkest, brightest, guess
):
    folder, _ = images(dtype, low, high, ending)
    data = data_of(folder)
    (line,) = notes(caplog)
    assert "\n" not in line
    assert f"{ROWS} images of more than 8 bits hold values from {low} to {high} alone" in line
    assert f"the first: row 0, {folder}/00.{ending}" in line
    assert f"they become {darkest} to {brightest} of 255. Set data.source.value_range=auto, or two numbers{guess}," in line
    assert int(data.pixels(torch.arange(ROWS)).max()) == brightest


def test_a_type_that_is_used_is_no_cause_for_words(images, caplog):
    folder, _ = images(np.uint16, 0, 40000)
    data_of(folder)
    assert notes(caplog) == []


@pytest.mark.parametrize(
    ("dtype", "low", "high", "ending"),
    [(np.uint16, 32, 4081, "png"), (np.int32, -1000, 3000, "tif"), (np.float32, -7, 250, "tif")],
)
def test_auto_is_the_range_over_the_whole_source_whatever_the_split(images, caplog, dtype, low, high, ending):
    folder, values = images(dtype, low, high, ending)
    expected = torch.from_numpy(np.rint((values.astype(np.float64) - low) * (255 / (high - low))).astype(np.uint8))[:, None]
    data = data_of(folder, value_range="auto")
    assert torch.equal(data.pixels(torch.arange(ROWS)), expected)
    source = Folder(path=str(folder), value_range="auto")
    few = ImageData(source, resolution=6, channels=1, num_members=2, num_heldout=2, seed=1)
    index = few.split.audited_index
    assert not {5, 9} & set(index.tolist()), "the rows with the smallest and the largest value are to be outside this split"
    assert torch.equal(few.pixels(index), expected[index])
    assert notes(caplog) == []


def test_two_numbers_are_black_and_white_and_what_is_outside_is_cut_off_and_counted(images, caplog):
    folder, values = images(np.int32, -1000, 3000, "tif")
    data = data_of(folder, value_range=(0, 2000))
    expected = np.rint(np.clip(values, 0, 2000) * (255 / 2000)).astype(np.uint8)
    assert torch.equal(data.pixels(torch.arange(ROWS)), torch.from_numpy(expected)[:, None])
    (line,) = notes(caplog)
    assert (
        f"data.source.value_range: {ROWS} images hold values outside 0 to 2000, which are cut off (the first: row 0, " in line
    )


def test_limits_that_change_nothing_are_said(images, caplog):
    folder, values = images(np.uint8, 0, 15)
    assert torch.equal(data_of(folder, value_range=(0, 15)).pixels(torch.arange(ROWS)), torch.from_numpy(values)[:, None])
    assert notes(caplog) == ["data.source.value_range changes nothing: no grey image has more than 8 bits."]


def test_values_outside_the_type_name_the_key_and_the_row(images):
    folder, _ = images(np.float32, 0, 250, "tif")
    with pytest.raises(
        UserError, match=r"row \d+, .*tif.* outside 0\.\.1: .*data\.source\.value_range=auto, or with two numbers"
    ):
        data_of(folder)
    PIL.Image.new("F", (6, 6), float("nan")).save(folder / "03.tif")
    with pytest.raises(UserError, match=r"row 3, .*03\.tif.* not finite"):
        data_of(folder, value_range="auto")


def test_auto_over_one_value_is_refused(images):
    folder, _ = images(np.uint16, 7, 7)
    with pytest.raises(UserError, match=r"data\.source\.value_range: auto finds one value alone, 7, in 24 images"):
        data_of(folder, value_range="auto")


@pytest.mark.parametrize("value", [[5, 5], [9, 0], [0, float("inf")], [0, float("nan")], [1], "full", 3, [1, 2, 3]], ids=str)
def test_a_range_that_can_not_be_is_refused_where_the_config_is_read(value):
    with pytest.raises(UserError, match=r"^data\.source\.value_range: ") as caught:
        check_component({"class": "folder", "path": "x", "value_range": value}, "data.source", IMAGE_SOURCES)
    assert len(str(caught.value).splitlines()) == 1


def test_a_range_that_can_be_is_taken():
    for value, expected in (("auto", "auto"), ([0, 4095], (0.0, 4095.0)), (None, None)):
        node = {"class": "folder", "path": "x", "value_range": value}
        assert check_component(node, "data.source", IMAGE_SOURCES).arguments["value_range"] == expected


def test_orientation_is_applied_to_wide_images_too():
    values = np.arange(16, dtype=np.uint16).reshape(4, 4) * 4000
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    PIL.Image.fromarray(values).save(file := io.BytesIO(), "PNG", exif=exif)
    turned = PIL.Image.fromarray(np.rot90(values, -1).copy())
    assert torch.equal(pixels(PIL.Image.open(file)), pixels(turned))


def test_a_file_of_12_bits_is_white_at_4095():
    # Two values of 12 bits lie in three bytes.
    packed = bytes([0xFF, 0xF0, 0x00]) * 2
    tags = [
        (256, 3, 2),
        (257, 3, 2),
        (258, 3, 12),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, 8),
        (277, 3, 1),
        (278, 3, 2),
        (279, 4, 6),
    ]
    entries = b"".join(
        struct.pack("<HHIHH" if kind == 3 else "<HHII", tag, kind, 1, *([value, 0] if kind == 3 else [value]))
        for tag, kind, value in tags
    )
    tiff = b"II*\0" + struct.pack("<I", 14) + packed + struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    image = PIL.Image.open(io.BytesIO(tiff))
    assert image.mode == "I;16"
    assert pixels(image).tolist() == [[255, 0], [255, 0]]


def test_dark_colour_of_16_bits_is_said_for_no_range_can_brighten_it(tmp_path, caplog):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    generator = np.random.default_rng(0)
    for row in range(ROWS):
        rows = b"".join(b"\0" + generator.integers(0, 4096, 18).astype(">u2").tobytes() for _ in range(6))
        header = struct.pack(">IIBBBBB", 6, 6, 16, 2, 0, 0, 0)
        content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
        (tmp_path / f"{row:02d}.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    data_of(tmp_path)
    (line,) = notes(caplog)
    assert f"{ROWS} colour images of 16 bits (the first: row 0, {tmp_path}/00.png)" in line
    assert "at most 15 of 255" in line


def test_the_handed_in_images(shared_file, caplog):
    for name, brightest in (("grey16_values_12_bit.png", 16), ("int32_values_0_to_255.tif", 1)):
        with PIL.Image.open(shared_file(f"inputs/{name}")) as image:
            values = np.array(image).astype(np.float64)
            assert int(pixels(image).max()) <= brightest
            spread = pixels(image, (values.min(), values.max()))
            assert (int(spread.min()), int(spread.max())) == (0, 255)
