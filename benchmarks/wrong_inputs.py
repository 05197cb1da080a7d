"""Wrong inputs, how each is made, and a fragment of the one line that answers it: for `benchmarks.mistakes`.

Each is made in an empty folder of its own, where the command runs. Commands that name "my runs/digits" find a run there.
"""

import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]


def nothing(folder: Path) -> None:
    """The command line alone is wrong."""


class Mistake(NamedTuple):
    """A wrong input.

    Attributes:
        name: What is wrong.
        command: `train` or `evaluate` with its arguments, as in a shell.
        expected: Regular expression that the answer holds.
        make: Makes the files in a folder; what it returns, if anything, is a process that runs meanwhile.
    """

    name: str
    command: str
    expected: str
    make: Callable[[Path], Any] = nothing


def file(name: str, content: str | bytes) -> Callable[[Path], None]:
    """Writes a file."""

    def make(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return make


def images(folder: Path, count: int = 20) -> None:
    """A folder "images" of grey noise."""
    import numpy as np
    from PIL import Image

    (folder / "images").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (count, 8, 8), dtype=np.uint8)
    for number, each in enumerate(pixels):
        Image.fromarray(each).save(folder / "images" / f"{number:02}.png")


def broken_image(folder: Path) -> None:
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
    from safetensors.torch import load_file, save_file

    path = folder / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    save_file(dict(list(weights.items())[2:]), path, metadata={"format": "pt"})


def other_channels(folder: Path) -> None:
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
    with subprocess.Popen(command, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=-1, stderr=-1) as process:
        while process.poll() is None and rows.stat().st_size <= size:
            time.sleep(0.02)
        yield
        process.kill()


def pickled(folder: Path) -> None:
    (folder / "model.ckpt").write_bytes(pickle.dumps({"state_dict": Path("x")}))


def of_others(folder: Path) -> None:
    import torch

    torch.save({"state_dict": {"weight": torch.zeros(2)}, "epoch": 3}, folder / "model.ckpt")


def other_split(folder: Path) -> None:
    import numpy as np

    with np.load(folder / RUN / "split.npz") as stored:
        arrays = dict(stored)
    arrays["mia_train_idxs"], arrays["mia_eval_idxs"] = arrays["mia_eval_idxs"], arrays["mia_train_idxs"]
    np.savez(folder / RUN / "split.npz", **arrays)


RUN = "my runs/digits"
DIGITS = "train --config digits.yaml"
FOLDER = f"{DIGITS} data.source.class=folder data.source.path=images data.num_members=5 data.num_heldout=5 data.num_public=5"
PARQUET = f"{DIGITS} data.source.class=parquet data.source.files="
LAST = f"evaluate 'ckpt={RUN}/checkpoints/last.ckpt'"
RESUME = f"train 'resume={RUN}'"
VAE = f"{DIGITS} autoencoder.max_epochs=0 autoencoder.network='{{class: pretrained, path: vae}}'"
ATTACK = '''from ldm_privacy.attacks.base import Attack
from ldm_privacy.registry import ATTACKS


@ATTACKS.register("mine")
class Mine(Attack):
    """Wrong."""

    def contributions(self, query, latent, timesteps, noise):
        '''
MINE = f"{DIGITS} plugins=[mine] audit.attacks.mine.class=mine"

AT_ONCE = [
    # The command line and its keys.
    Mistake("no config", "train", r"no config: name one.*digits\.yaml"),
    Mistake("mistyped config", "train --config digit.yaml", r"digit\.yaml.*digits\.yaml"),
    Mistake("mistyped option", "train --confg digits.yaml", r"unknown option\. Did you mean '--config'"),
    Mistake("mistyped key", f"{DIGITS} trainer.max_epoch=3", "Did you mean 'max_epochs'"),
    Mistake("mistyped section", f"{DIGITS} trianer.max_epochs=3", "Did you mean 'trainer'"),
    Mistake("mistyped word", "train resum=runs/digits", "no config|resume"),
    Mistake("override without a value", f"{DIGITS} trainer.max_epochs", "expected key=value"),
    Mistake("text for a number", f"{DIGITS} trainer.max_epochs=many", r"trainer\.max_epochs: 'many'"),
    Mistake("no epochs", f"{DIGITS} trainer.max_epochs=0", r"trainer\.max_epochs: 0 .*greater"),
    Mistake("infinite learning rate", f"{DIGITS} denoiser.learning_rate=.inf", r"denoiser\.learning_rate: inf"),
    Mistake("learning rate of nan", f"{DIGITS} denoiser.learning_rate=.nan", r"denoiser\.learning_rate: nan"),
    Mistake(
        "infinite minutes", f"{DIGITS} trainer.checkpoint_every_n_minutes=.inf", r"trainer\.checkpoint_every_n_minutes: inf"
    ),
    Mistake("share above one", f"{DIGITS} audit.keep_fractions=[2.0]", r"audit\.keep_fractions.*2\.0"),
    Mistake("unknown attack", f"{DIGITS} audit.attacks.x.class=simma", r"audit\.attacks\.x\.class: .*Did you mean 'sima'"),
    Mistake("a number for a name", f"{DIGITS} name=2024", "name: 2024.*quote"),
    Mistake("a path for a name", f"{DIGITS} name=../up", r"name: '\.\./up' can't be a folder's name"),
    Mistake("negative seed", f"{DIGITS} seed=-1", "seed: -1"),
    Mistake("unknown logger", f"{DIGITS} loggers=[wandbb]", "unknown logger 'wandbb'. Did you mean 'wandb'"),
    Mistake("unknown choice", f"{DIGITS} wandb.mode=of", r"wandb\.mode: 'of'"),
    Mistake("broken YAML", "train --config my.yaml", r"my\.yaml", file("my.yaml", "defaults: [data/digits\ntrainer: {")),
    Mistake("YAML that is a list", "train --config my.yaml", r"my\.yaml", file("my.yaml", "- a\n- b\n")),
    Mistake("empty YAML", "train --config my.yaml", "data: missing|my.yaml", file("my.yaml", "")),
    Mistake("YAML that is a picture", "train --config my.yaml", r"my\.yaml", file("my.yaml", b"\x89PNG\r\n\x1a\n\xff\xfe\x00")),
    Mistake("unknown group file", "train --config my.yaml", "data/digit.*", file("my.yaml", "defaults: [data/digit]\n")),
    Mistake("a folder for a config", "train --config my.yaml", r"my\.yaml", lambda folder: (folder / "my.yaml").mkdir()),
    # Plug-ins.
    Mistake("no such plug-in", f"{DIGITS} plugins=[nowhere]", "'nowhere'"),
    Mistake("plug-in that raises", f"{DIGITS} plugins=[mine]", r"mine\.py:2", file("mine.py", "x = 1\nx / 0\n")),
    Mistake("plug-in with a syntax error", f"{DIGITS} plugins=[mine]", r"mine\.py:2", file("mine.py", "x = 1\nx = (\n")),
    Mistake("plug-in that exits", f"{DIGITS} plugins=[mine]", r"mine\.py:2", file("mine.py", "import sys\nsys.exit(0)\n")),
    Mistake("plug-in given as a path", f"{DIGITS} plugins=[./mine.py]", r"plugins: .*plugins=\[mine\]", file("mine.py", "")),
    # Checkpoints.
    Mistake("no checkpoint named", "evaluate", "ckpt: name a checkpoint"),
    Mistake("no such checkpoint", f"evaluate 'ckpt={RUN}/checkpoints/lst.ckpt'", r"does not exist.*last\.ckpt"),
    Mistake("a run for a checkpoint", f"evaluate 'ckpt={RUN}'", "is a folder"),
    Mistake("a config for an evaluation", f"{LAST} --config digits.yaml", "takes its config from the checkpoint"),
    Mistake("another denoiser for an evaluation", f"{LAST} denoiser.batch_size=3", "'denoiser.batch_size' can't be changed"),
    Mistake("one score file", "evaluate ckpt=scores.parquet", "name two at least", file("scores.parquet", "")),
    # Going on.
    Mistake("no such run", "train resume=runs/digts", "is no run"),
    Mistake("a folder that is no run", "train resume=images", "is no run", images),
    Mistake("a config for a run that goes on", f"{RESUME} --config digits.yaml", "without --config"),
    Mistake(
        "another denoiser for a run that goes on", f"{RESUME} denoiser.batch_size=3", "'denoiser.batch_size' can't be changed"
    ),
    Mistake("broken config.yaml", RESUME, r"config\.yaml", edited("config.yaml", "data:", "data: [")),
    Mistake("a run that another process trains", RESUME, "another process|is being", in_training),
]
"""Nothing has to be loaded to know it."""

LOADED = [
    # The command line and its keys.
    Mistake("infinite weight of a loss", f"{DIGITS} autoencoder.losses.kl.weight=.inf", r"autoencoder\.losses\.kl"),
    Mistake("no rates", f"{DIGITS} audit.target_fprs=[]", r"audit\.target_fprs"),
    Mistake("share of a mask", f"{DIGITS} audit.masks.top60.keep_fraction=1.5", r"audit\.masks\.top60.*keep_fraction"),
    Mistake("argument of another class", f"{DIGITS} data.source.path=scans", r"data\.source.*'path'.*folder"),
    Mistake("timestep outside the schedule", f"{DIGITS} audit.timesteps=[1000]", "audit.timesteps: 1000"),
    Mistake("output_dir is a file", f"{DIGITS} output_dir=out", "output_dir: 'out", file("out", "")),
    Mistake("output_dir can't be made", f"{DIGITS} output_dir=/proc/out", "output_dir: '/proc/out.* can't be made"),
    # Devices.
    Mistake("no such accelerator", f"{DIGITS} trainer.accelerator=mps", r"trainer\.accelerator: 'mps' is not there"),
    Mistake("devices that aren't there", f"{DIGITS} trainer.devices=99", r"trainer\.devices: 99"),
    Mistake("nodes that aren't there", f"{DIGITS} trainer.num_nodes=2", r"trainer\.num_nodes: 2"),
    # Data.
    Mistake("no such folder", FOLDER, "there is no folder .*images"),
    Mistake("empty folder", FOLDER, "images", lambda folder: (folder / "images").mkdir()),
    Mistake("folder of texts", FOLDER, "images", file("images/a.txt", "no image")),
    Mistake("broken image", FOLDER, r"07\.png", broken_image),
    Mistake("too few images", FOLDER, "15.*8|8.*15", lambda folder: images(folder, 8)),
    Mistake("metadata with a header only", FOLDER, r"metadata\.csv", metadata("file_name,age\n")),
    Mistake("metadata of other files", FOLDER, r"metadata\.csv.*nowhere\.png", metadata("file_name\nnowhere.png\n")),
    Mistake("metadata with absolute paths", FOLDER, r"metadata\.csv", metadata("file_name\n/images/00.png\n")),
    Mistake("a text called parquet", f"{PARQUET}a.parquet", r"a\.parquet", file("a.parquet", "text")),
    Mistake("pattern without a match", f"{PARQUET}'*.parquet'", "no file matches"),
    Mistake("a folder for files", f"{PARQUET}images", "images.*folder", images),
    Mistake("parquet without images", f"{PARQUET}table.parquet", "image_column", parquet),
    Mistake("index file without keys", f"{DIGITS} data.index_file=index.npz", "mia_train_idxs", index_file(a=[1])),
    Mistake(
        "index beyond the data",
        f"{DIGITS} data.index_file=index.npz data.num_members=null data.num_heldout=null data.num_public=null",
        "9999",
        index_file(mia_train_idxs=[1, 9999], mia_eval_idxs=[2, 3], public_idxs=[4, 5]),
    ),
    Mistake("no such column", f"{DIGITS} data.group_column=patient", "'patient'"),
    Mistake("a Hub data set offline", f"{DIGITS} data.source='{{class: hub, repo_id: a/b}}'", "a/b.*parquet"),
    # Plug-ins.
    Mistake("name that is taken", MINE, "already registered", file("mine.py", ATTACK.replace('"mine"', '"sima"'))),
    Mistake("attack that raises", MINE, r"mine\.py:10.*check_attack", file("mine.py", f"{ATTACK}return 1 / 0\n")),
    Mistake("attack of another shape", MINE, "mine.*check_attack", file("mine.py", f"{ATTACK}return latent[0]\n")),
    # Weights.
    Mistake("no such autoencoder", VAE, r"autoencoder\.network\.path"),
    Mistake("autoencoder without two tensors", VAE, "2 weights", autoencoder(without_two)),
    Mistake("autoencoder of other channels", VAE, "vae", autoencoder(other_channels)),
    # Checkpoints.
    Mistake("empty checkpoint", "evaluate ckpt=a.ckpt", r"a\.ckpt.*truncated", file("a.ckpt", "")),
    Mistake("truncated checkpoint", LAST, "truncated", lambda folder: cut(folder, f"{RUN}/checkpoints/last.ckpt")),
    Mistake("a pickle", "evaluate ckpt=model.ckpt", "refused", pickled),
    Mistake("another program's checkpoint", "evaluate ckpt=model.ckpt", "not a checkpoint of this program", of_others),
    Mistake("an autoencoder's checkpoint", f"{LAST.replace('last', 'autoencoder-last')}", "autoencoder stage"),
    Mistake("out is a file", f"{LAST} out=here", "here", file("here", "")),
    Mistake("out can't be made", f"{LAST} out=/proc/here", "/proc/here"),
    # Going on.
    Mistake("config.yaml was edited", RESUME, "denoiser.learning_rate=", edited("config.yaml", "0.001", "0.5")),
    Mistake("fewer epochs than it has", f"{RESUME} trainer.max_epochs=1", "has 2 epochs already"),
    Mistake("another split", RESUME, r"split\.npz holds split", other_split),
    Mistake("truncated split", RESUME, r"split\.npz", lambda folder: cut(folder, f"{RUN}/split.npz")),
    Mistake("last.ckpt is truncated", RESUME, "truncated", lambda folder: cut(folder, f"{RUN}/checkpoints/last.ckpt")),
]
"""Images, weights, networks or the classes that take an argument have to be loaded to know it."""
