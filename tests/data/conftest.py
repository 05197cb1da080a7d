"""Small images on disk, and a cache of their own for the Hugging Face library."""

import io

import datasets
import numpy as np
import PIL.Image
import pytest


@pytest.fixture(autouse=True)
def datasets_cache(tmp_path_factory, monkeypatch):
    """Prepared data go into a folder of this test."""
    cache = tmp_path_factory.mktemp("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    return cache


@pytest.fixture
def random_image():
    """A function (seed, size, mode) -> PIL image of random pixels."""

    def make(seed: int, size: tuple[int, int] = (6, 6), mode: str = "RGB") -> PIL.Image.Image:
        pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        return PIL.Image.fromarray(pixels).convert(mode)

    return make


@pytest.fixture
def png():
    """A function image -> bytes of a PNG file."""

    def encode(image: PIL.Image.Image) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, format="PNG")
        return buffer.getvalue()

    return encode


@pytest.fixture
def image_dataset(random_image, png):
    """A function (rows, **columns) -> Dataset with a column "image" of random 6x6 images, image i drawn from seed i."""

    def make(rows: int, **columns) -> datasets.Dataset:
        cells = [{"bytes": png(random_image(row)), "path": None} for row in range(rows)]
        features = datasets.Dataset.from_dict(columns).features if columns else {}
        return datasets.Dataset.from_dict(
            {"image": cells, **columns}, features=datasets.Features({"image": datasets.Image(), **features})
        )

    return make
