"""A CIFAR-10 split made to leak: members brightened by a few grey levels, and what the model-free control says.

    python benchmarks/leak.py --images 'cifar10/train-*.parquet' [--num-per-side 1000] [--levels 0 1 2 4 8] [--seed 0]

Members and held-out are drawn at random from all images; values above 255 are clipped.
"""

import argparse
import glob
import io
import time

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor

from ldm_privacy.controls.image_features import image_features
from ldm_privacy.controls.model_free import classify


def read_images(pattern: str, count: int, seed: int) -> Tensor:
    """Random images of the parquet files, uint8 (count, channels, height, width), in random order."""
    cells: list[dict] = []
    for path in sorted(glob.glob(pattern)):
        table = pq.read_table(path)
        cells += table["img" if "img" in table.column_names else "image"].to_pylist()
    if len(cells) < count:
        raise SystemExit(f"--images: {len(cells)} images in '{pattern}', {count} are needed.")
    chosen = np.random.default_rng(seed).permutation(len(cells))[:count]
    images = [np.asarray(Image.open(io.BytesIO(cells[place]["bytes"])).convert("RGB")) for place in chosen]
    return torch.tensor(np.stack(images)).permute(0, 3, 1, 2)


def brighten(pixels: Tensor, levels: int) -> Tensor:
    """uint8 pixels, `levels` grey levels brighter, clipped at 255."""
    return (pixels.int() + levels).clamp(max=255).to(torch.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", required=True)
    parser.add_argument("--num-per-side", type=int, default=1000)
    parser.add_argument("--levels", type=int, nargs="+", default=[0, 1, 2, 4, 8])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    pixels = read_images(options.images, 2 * options.num_per_side, options.seed)
    is_member = torch.arange(len(pixels)) < options.num_per_side
    title = f"{options.num_per_side} + {options.num_per_side} images"
    table = Table("grey levels", "logistic", "boosting", "leaks", "deciding features", "seconds", title=title)
    sentence = ""
    for levels in options.levels:
        start = time.perf_counter()
        images = torch.where(is_member[:, None, None, None], brighten(pixels, levels), pixels).float() / 127.5 - 1
        findings = classify(image_features(images), is_member, seed=options.seed)
        leaks, causes, sentence = findings[0].leaks, findings[0].numbers["deciding_features"], findings[0].sentence
        cells = [str(each.estimate) for each in findings]
        seconds = f"{time.perf_counter() - start:.1f}"
        table.add_row(str(levels), *cells, "yes" if leaks else "no", ", ".join(causes) if leaks else "", seconds)
    console = Console(width=200)
    console.print(table)
    console.print(sentence)


if __name__ == "__main__":
    main()
