"""The files of wrong inputs: functions that make them in a folder, for `benchmarks.wrong_inputs`."""

import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RUN = "my runs/digits"


def nothing(folder: Path) -> None:
    """The command line alone is wrong."""


def file(name: str, content: str | bytes) -> Callable[[Path], None]:
    """Writes a file."""

    def make(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return make


def images(folder: Path, count: int = 15) -> None:
    """A folder "images" of grey noise."""
    import numpy as np
    from PIL import Image

    (folder / "images").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (count, 8, 8), dtype=np.uint8)
    for number, each in enumerate(pixels):
        Image.fromarray(each).save(folder / "images" / f"{number:02}.png")


def broken_image(folder: Path) -> None:
    """One of the images ends too soon."""
    images(folder)
    path = folder / "images" / "07.png"
    path.write_bytes(path.read_bytes()[:60])


def metadata(content: str) -> Callable[[Path], None]:
    """Images with a metadata.csv."""

    def make(folder: Path) -> None:
        images(folder)
        (folder / "images" / "metadata.csv").write_text(content)

    return make


def parquet(folder: Path) -> None:
    """A parquet file without images."""
    import pandas as pd

    pd.DataFrame({"age": [1, 2, 3]}).to_parquet(folder / "table.parquet")


def index_file(**arrays: list[int]) -> Callable[[Path], None]:
    """A file of indices."""

    def make(folder: Path) -> None:
        import numpy as np

        np.savez(folder / "index.npz", **{name: np.array(values) for name, values in arrays.items()})

    return make


def autoencoder(change: Callable[[Path], None]) -> Callable[[Path], None]:
    """A folder "vae" with an autoencoder, changed."""

    def make(folder: Path) -> None:
        from diffusers import AutoencoderKL

        blocks = {"down_block_types": ["DownEncoderBlock2D"], "up_block_types": ["UpDecoderBlock2D"]}
        AutoencoderKL(1, 1, **blocks, block_out_channels=[8], norm_num_groups=4).save_pretrained(folder / "vae")
        change(folder / "vae")

    return make


def without_two(folder: Path) -> None:
    """The autoencoder's file lacks two tensors."""
    from safetensors.torch import load_file, save_file

    path = folder / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    save_file(dict(list(weights.items())[2:]), path, metadata={"format": "pt"})


def other_channels(folder: Path) -> None:
    """The autoencoder's config.json doesn't fit its weights."""
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace('"latent_channels": 4', '"latent_channels": 8'))


def cut(folder: Path, name: str) -> None:
    """Leave half of a file."""
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])


def edited(name: str, old: str, new: str) -> Callable[[Path], None]:
    """A text file of the run, edited."""

    def make(folder: Path) -> None:
        path = folder / RUN / name
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    return make


@contextmanager
def in_training(folder: Path) -> Iterator[None]:
    """The run trains on in another process meanwhile."""
    command = [sys.executable, str(ROOT / "train.py"), f"resume={RUN}", "trainer.max_epochs=100000"]
    rows = folder / RUN / "metrics.csv"
    size = rows.stat().st_size
    environment, unseen = {**os.environ, "PYTHONPATH": str(ROOT)}, subprocess.DEVNULL
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=unseen, stderr=unseen) as process:
        try:
            while process.poll() is None and rows.stat().st_size <= size:
                time.sleep(0.02)
            yield
        finally:
            process.kill()


def pickled(folder: Path) -> None:
    """A pickle that would run code."""
    (folder / "model.ckpt").write_bytes(pickle.dumps({"state_dict": Path("x")}))


def of_others(folder: Path) -> None:
    """A checkpoint of another program."""
    import torch

    torch.save({"state_dict": {"weight": torch.zeros(2)}, "epoch": 3}, folder / "model.ckpt")


def other_scores(folder: Path) -> None:
    """The scores of an audit beside the checkpoint of another seed."""
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    path = folder / RUN / "scores" / "epoch-0.safetensors"
    with safe_open(path, framework="pt") as stored:
        metadata = {name: text.replace('"seed": 0', '"seed": 7') for name, text in stored.metadata().items()}
    save_file(load_file(path), path, metadata=metadata)


def other_split(folder: Path) -> None:
    """The run's split.npz with its sides exchanged."""
    import numpy as np

    with np.load(folder / RUN / "split.npz") as stored:
        arrays = dict(stored)
    arrays["mia_train_idxs"], arrays["mia_eval_idxs"] = arrays["mia_eval_idxs"], arrays["mia_train_idxs"]
    np.savez(folder / RUN / "split.npz", **arrays)
