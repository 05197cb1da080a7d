"""Images that may be larger than memory: whatever is kept, and however many threads decode, they are the same images."""

import datasets
import numpy as np
import pytest
import torch

from ldm_privacy.config import data_section
from ldm_privacy.data import bounded
from ldm_privacy.data.bounded import AT_ONCE, BoundedImages, digest_of_pixels, num_that_fit
from ldm_privacy.errors import UserError

NUM_IMAGES, NUMBERS = 3 * AT_ONCE + 7, 3 * 6 * 6
SOME = (2 * AT_ONCE + 20) * NUMBERS / 2**30
"""GiB for 20 images beside two batches."""


@pytest.fixture
def images_of(image_dataset):
    """A function (GiB, threads) -> the images of every second row."""
    dataset = image_dataset(2 * NUM_IMAGES).cast_column("image", datasets.Image(decode=False))

    def make(memory_gib, num_threads=1, dataset=dataset, **options):
        given = {"resolution": 6, "channels": 3, "memory_gib": memory_gib, "num_threads": num_threads, **options}
        return BoundedImages(dataset, "image", range(0, 2 * NUM_IMAGES, 2), **given)

    return make


@pytest.mark.parametrize(("memory_gib", "num_kept"), [(None, NUM_IMAGES), (1, NUM_IMAGES), (SOME, 20), (0, 0)])
def test_what_is_kept_changes_no_image(images_of, random_image, memory_gib, num_kept):
    images = images_of(memory_gib, 3)
    assert images.num_kept == num_kept
    assert images.num_decoded == NUM_IMAGES
    place = torch.tensor([NUM_IMAGES - 1, 3, 150, 0, 150, 19, 20, 3])
    expected = torch.stack([torch.from_numpy(np.array(random_image(2 * each))).permute(2, 0, 1) for each in place.tolist()])
    assert torch.equal(images[place], expected)
    assert images.num_decoded == NUM_IMAGES + len({each for each in place.tolist() if each >= num_kept}), "each of them once"
    assert images.digests == [digest_of_pixels(each) for each in images[torch.arange(NUM_IMAGES)]]
    assert images[place[:0]].shape == (0, 3, 6, 6)


def test_what_is_kept_and_what_is_decoded_fit_together():
    shape = torch.Size((3, 512, 512))
    for gib in (0.1, 1, 4):
        kept = num_that_fit(118_000, shape, gib)
        assert 0 <= gib * 2**30 - (kept + 2 * AT_ONCE) * shape.numel() < shape.numel()
    assert data_section.IMAGES_AT_ONCE == AT_ONCE, "what a config is checked against"


@pytest.mark.parametrize("num_threads", [1, 5])
def test_the_first_image_that_cannot_be_read_is_named_whatever_thread_met_it(images_of, image_dataset, num_threads):
    cells = image_dataset(2 * NUM_IMAGES).cast_column("image", datasets.Image(decode=False))["image"][:]
    for row in (94, 60, 62):
        cells[row] = {"bytes": cells[row]["bytes"][:40], "path": None}
    broken = datasets.Dataset.from_dict({"image": cells}, features=datasets.Features({"image": datasets.Image(decode=False)}))
    with pytest.raises(UserError, match=r"row 60, column 'image': the image can't be read"):
        images_of(None, num_threads, dataset=broken)


def test_pixels_are_indexed_as_a_tensor_of_them(images_of):
    whole, part = images_of(None), images_of(SOME)
    places, number = torch.tensor([180, 5, 40]), torch.tensor([2, 2, 0])
    for images in (whole, part):
        pixels = bounded.Pixels(images, places)
        assert len(pixels) == 3
        assert torch.equal(pixels[number], whole[places][number])
        assert pixels.to(torch.device("cpu")) is pixels
    elsewhere = torch.device("meta")
    assert bounded.Pixels(part, places).to(elsewhere).device.type == "cpu", "they don't fit, so they stay"
    assert bounded.Pixels(whole, places).to(elsewhere).device == elsewhere


def test_progress_is_told_from_none_to_all(images_of):
    calls = []
    images_of(0, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(done, NUM_IMAGES) for done in (0, AT_ONCE, 2 * AT_ONCE, 3 * AT_ONCE, NUM_IMAGES)]


def test_an_image_that_is_decoded_again_must_be_what_it_was(random_image, tmp_path):
    files = [tmp_path / f"{number}.png" for number in range(4)]
    for number, file in enumerate(files):
        random_image(number).save(file)
    cells = {"image": [{"bytes": None, "path": str(file)} for file in files]}
    dataset = datasets.Dataset.from_dict(cells, features=datasets.Features({"image": datasets.Image(decode=False)}))
    images = BoundedImages(dataset, "image", range(4), resolution=6, channels=3, memory_gib=0)
    random_image(9).save(files[2])
    assert len(images[torch.tensor([0, 3])]) == 2
    with pytest.raises(UserError, match=r"^data\.source: row 2 was changed while this program ran"):
        images[torch.arange(4)]
