"""Small data sets in the layouts that the published ones come in, of random pictures.

Each function writes one below a folder and returns the options of the source that reads it, but for its class.
"""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from PIL import Image

WORDS = ("a dog runs", "two people talk", "a red car, parked", 'a sign says "stop"', "an empty street")


def picture(seed: int, *, size: tuple[int, int] = (40, 32), grey: bool = False, brightest: int = 256) -> Image.Image:
    """Random pixels below `brightest`; (width, height)."""
    shape = (size[1], size[0]) if grey else (size[1], size[0], 3)
    return Image.fromarray(np.random.default_rng(seed).integers(0, brightest, shape, dtype=np.uint8))


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    """The bytes of an image file."""
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def captions_of(number: int, count: int = 5) -> list[str]:
    """Different for every number."""
    return [f"{WORDS[(number + place) % len(WORDS)]}, number {number}" for place in range(count)]


def write_hub(folder: Path, n: int, *, image_column: str = "img", **columns: list) -> dict[str, str]:
    """A parquet file as the Hub's have it, 32x32 colour; further columns as given (source `parquet`)."""
    folder.mkdir(parents=True, exist_ok=True)
    cells = [{"bytes": encoded(picture(number, size=(32, 32))), "path": None} for number in range(n)]
    pa.parquet.write_table(pa.table({image_column: cells, **columns}), folder / "train-00000-of-00001.parquet")
    return {"files": str(folder / "*.parquet")}


def write_coco(folder: Path, n: int, *, kind: str = "captions") -> dict[str, str]:
    """COCO 2017: annotations/captions_val2017.json and val2017/, five captions an image (source `coco`)."""
    images, annotations = folder / "val2017", folder / "annotations"
    for each in (images, annotations):
        each.mkdir(parents=True, exist_ok=True)
    identities = [139 + 7 * number for number in range(n)]
    for identity in identities:
        picture(identity).save(images / f"{identity:012}.jpg")
    listed = [{"id": each, "file_name": f"{each:012}.jpg", "width": 40, "height": 32} for each in reversed(identities)]
    said = [
        {
            "id": 10 * number + place,
            "image_id": identity,
            **({"caption": text} if kind == "captions" else {"bbox": [0, 0, 1, 1]}),
        }
        for number, identity in enumerate(identities)
        for place, text in enumerate(captions_of(number))
    ]
    file = annotations / f"{kind}_val2017.json"
    file.write_text(json.dumps({"info": {}, "licenses": [], "images": listed, "annotations": said[::-1]}))
    return {"annotations": str(file), "images": str(images)}


def write_flickr30k(folder: Path, n: int, *, layout: str = "annotations") -> dict[str, str]:
    """Flickr30k: flickr30k-images/ beside one of the three files that its captions come in (source `flickr30k`).

    "annotations": the Hub's flickr_annotations_30k.csv; "results": Kaggle's results.csv, in which one line lacks a bar, as in
    the real one; "token": the first one's results_20130124.token.
    """
    images = folder / "flickr30k-images"
    images.mkdir(parents=True, exist_ok=True)
    names = [f"{1000092795 + 31 * number}.jpg" for number in range(n)]
    for number, name in enumerate(names):
        picture(number).save(images / name)
    if layout == "annotations":
        file, lines = folder / "flickr_annotations_30k.csv", ["raw,sentids,split,filename,img_id"]
        for number, name in enumerate(names):
            raw = json.dumps(captions_of(number)).replace('"', '""')
            lines.append(f'"{raw}","[0, 1, 2, 3, 4]",train,{name},{number}')
    elif layout == "results":
        file, lines = folder / "results.csv", ["image_name| comment_number| comment"]
        for number, name in enumerate(names):
            lines += [f"{name}| {place}|  {text}" for place, text in enumerate(captions_of(number))]
        lines[-1] = lines[-1].replace("| 4|", "| 4  ")
    else:
        file, lines = folder / "results_20130124.token", []
        for number, name in enumerate(names):
            lines += [f"{name}#{place}\t{text}" for place, text in enumerate(captions_of(number))]
    file.write_text("\n".join(lines) + "\n")
    return {"captions": str(file), "images": str(images)}


def write_celeba(folder: Path, n: int, *, num_identities: int = 10) -> dict[str, str]:
    """CelebA: img_align_celeba/ and identity_CelebA.txt (source `celeba`)."""
    images = folder / "img_align_celeba"
    images.mkdir(parents=True, exist_ok=True)
    names = [f"{number + 1:06}.jpg" for number in range(n)]
    for number, name in enumerate(names):
        picture(number, size=(36, 44)).save(images / name)
    lines = [f"{name} {1000 + number % num_identities}" for number, name in enumerate(names)]
    (folder / "identity_CelebA.txt").write_text("\n".join(lines) + "\n")
    return {"images": str(images), "identities": str(folder / "identity_CelebA.txt")}


def write_imagenet(
    folder: Path, n: int, *, num_classes: int = 4, num_heldout: int = 0, brightest_heldout: int = 256
) -> dict[str, str]:
    """ImageNet: train/ with `n` images a class, and val/ with `num_heldout` where there are some (source `imagenet`)."""
    synsets = [f"n0{1440764 + 3 * number}" for number in range(num_classes)]
    for number, synset in enumerate(synsets):
        for side, count, brightest in (("train", n, 256), ("val", num_heldout, brightest_heldout)):
            for place in range(count):
                name = (
                    f"{synset}_{place}.JPEG"
                    if side == "train"
                    else f"ILSVRC2012_val_{num_classes * place + number + 1:08}.JPEG"
                )
                (folder / side / synset).mkdir(parents=True, exist_ok=True)
                seed = 10_000 * (side == "val") + 100 * number + place
                picture(seed, brightest=brightest).save(folder / side / synset / name, "JPEG")
    return {"path": str(folder / "train"), **({"heldout_path": str(folder / "val")} if num_heldout else {})}


def write_webdataset(folder: Path, n: int, *, num_shards: int = 2) -> dict[str, str]:
    """Shards as img2dataset writes them: 00000.tar, ... of .jpg, .txt (its caption) and .json (source `webdataset`)."""
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(num_shards):
        with tarfile.open(folder / f"{shard:05}.tar", "w") as tar:
            for number in range(shard * n // num_shards, (shard + 1) * n // num_shards):
                (caption,) = captions_of(number, 1)
                described = {"caption": caption, "patient": f"p{number // 2}", "width": 40}
                parts = {
                    "jpg": encoded(picture(number), "JPEG"),
                    "txt": caption.encode(),
                    "json": json.dumps(described).encode(),
                }
                for ending, data in parts.items():
                    member = tarfile.TarInfo(f"{number:09}.{ending}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    return {"files": str(folder / "*.tar")}


def write_medical(folder: Path, n: int, *, num_patients: int = 10) -> dict[str, str]:
    """Grey images of 12 bits in 16, and a metadata.csv with a patient each (source `folder`)."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["file_name,patient,view"]
    for number in range(n):
        values = np.random.default_rng(number).integers(0, 4096, (48, 40), dtype=np.uint16)
        Image.fromarray(values).save(folder / f"{number:04}.png")
        lines.append(f"{number:04}.png,{number % num_patients},frontal")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return {"path": str(folder)}


def overrides(source: str, options: dict[str, str]) -> list[str]:
    """The command line's words for a source of that class."""
    return [f"data.source.class={source}", *(f"data.source.{name}='{value}'" for name, value in options.items())]
