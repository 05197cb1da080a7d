"""Wrong inputs, and a fragment of the one line that answers each: for `benchmarks.mistakes`.

Each is made in an empty folder of its own, where the command runs. Commands that name "my runs/digits" find a run there.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.wrong_files import (
    RUN,
    autoencoder,
    broken_image,
    cut,
    edited,
    file,
    images,
    in_training,
    index_file,
    metadata,
    nothing,
    of_others,
    other_channels,
    other_scores,
    other_split,
    parquet,
    pickled,
    without_two,
)


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

HISTORY = f"{DIGITS} audit.calibrations.history"
CALIBRATION = '''from ldm_privacy.calibrations.base import Calibrated, Calibration
from ldm_privacy.registry import CALIBRATIONS


@CALIBRATIONS.register("mine")
class Mine(Calibration):
    """Wrong."""

    def __call__(self, known):
        '''
YOURS = f"{DIGITS} plugins=[mine] audit.calibrations.mine.class=mine"

AT_ONCE = [
    # The command line and its keys.
    Mistake("no config", "train", r"no config: name one.*digits\.yaml"),
    Mistake("mistyped config", "train --config digit.yaml", r"digit\.yaml.*digits\.yaml"),
    Mistake("mistyped option", "train --confg digits.yaml", r"unknown option\. Did you mean '--config'"),
    Mistake("mistyped key", f"{DIGITS} trainer.max_epoch=3", "Did you mean 'max_epochs'"),
    Mistake("mistyped section", f"{DIGITS} trianer.max_epochs=3", "Did you mean 'trainer'"),
    Mistake("mistyped word", "train resum=runs/digits", "no config.*Did you mean 'resume'"),
    Mistake("override without a value", f"{DIGITS} trainer.max_epochs", "expected key=value"),
    Mistake("value that is no YAML", f"{PARQUET}'*.parquet'", r"files=\*\.parquet: .*no YAML.*quoted"),
    Mistake("text for a number", f"{DIGITS} trainer.max_epochs=many", r"trainer\.max_epochs: 'many'"),
    Mistake("no epochs", f"{DIGITS} trainer.max_epochs=0", r"trainer\.max_epochs: 0 .*greater"),
    Mistake("infinite learning rate", f"{DIGITS} denoiser.learning_rate=.inf", r"denoiser\.learning_rate: inf"),
    Mistake("learning rate of nan", f"{DIGITS} denoiser.learning_rate=.nan", r"denoiser\.learning_rate: nan"),
    Mistake("share above one", f"{DIGITS} audit.keep_fractions=[2.0]", r"audit\.keep_fractions.*2\.0"),
    Mistake("unknown attack", f"{DIGITS} audit.attacks.x.class=simma", r"audit\.attacks\.x\.class: .*Did you mean 'sima'"),
    Mistake(
        "unknown calibration",
        f"{DIGITS} audit.calibrations.x.class=histori",
        r"audit\.calibrations\.x\.class: .*Did you mean 'history'",
    ),
    Mistake("a number for a name", f"{DIGITS} name=2024", "name: 2024.*quote"),
    Mistake("a path for a name", f"{DIGITS} name=../up", r"name: '\.\./up' can't be a folder's name"),
    Mistake("negative seed", f"{DIGITS} seed=-1", "seed: -1"),
    Mistake("unknown logger", f"{DIGITS} loggers=[wandbb]", "unknown logger 'wandbb'. Did you mean 'wandb'"),
    Mistake("broken YAML", "train --config my.yaml", r"my\.yaml", file("my.yaml", "defaults: [data/digits\ntrainer: {")),
    Mistake("empty YAML", "train --config my.yaml", "data: missing|my.yaml", file("my.yaml", "")),
    Mistake("YAML that is a picture", "train --config my.yaml", r"my\.yaml", file("my.yaml", b"\x89PNG\r\n\x1a\n\xff\xfe\x00")),
    Mistake("unknown group file", "train --config my.yaml", "data/digit.*", file("my.yaml", "defaults: [data/digit]\n")),
    Mistake("a folder for a config", "train --config my.yaml", r"my\.yaml", lambda folder: (folder / "my.yaml").mkdir()),
    # Places.
    Mistake("output_dir is a file", f"{DIGITS} output_dir=out", "output_dir: 'out", file("out", "")),
    Mistake("output_dir can't be made", f"{DIGITS} output_dir=/proc/out", "output_dir: '/proc/out.* can't be made"),
    Mistake("out is a file", f"{LAST} out=here", "out: 'here' is a file", file("here", "")),
    Mistake("out can't be made", f"{LAST} out=/proc/here", "out: '/proc/here' can't be made"),
    # Plug-ins.
    Mistake("no such plug-in", f"{DIGITS} plugins=[nowhere]", "'nowhere'"),
    Mistake("plug-in that raises", f"{DIGITS} plugins=[mine]", r"mine\.py:2", file("mine.py", "x = 1\nx / 0\n")),
    Mistake("plug-in with a syntax error", f"{DIGITS} plugins=[mine]", r"mine\.py:2", file("mine.py", "x = 1\nx = (\n")),
    Mistake("plug-in that exits", f"{DIGITS} plugins=[mine]", r"mine\.py:2", file("mine.py", "import sys\nsys.exit(0)\n")),
    Mistake("plug-in given as a path", f"{DIGITS} plugins=[./mine.py]", r"plugins: .*plugins=\[mine\]", file("mine.py", "")),
    # Checkpoints.
    Mistake("no checkpoint named", "evaluate", "ckpt: name a checkpoint"),
    Mistake("no such checkpoint", f"evaluate 'ckpt={RUN}/checkpoints/lst.ckpt'", r"does not exist.*last\.ckpt"),
    Mistake("a run for a checkpoint", f"evaluate 'ckpt={RUN}'", "is the folder of a run"),
    Mistake("another denoiser to evaluate", f"{LAST} denoiser.batch_size=3", "'denoiser.batch_size' can't be changed"),
    Mistake("one score file", "evaluate ckpt=scores.parquet", "name two at least", file("scores.parquet", "")),
    # Going on.
    Mistake("no such run", "train resume=runs/digts", "is no run"),
    Mistake("a folder that is no run", "train resume=images", "is no run", images),
    Mistake("a config on resume", f"{RESUME} --config digits.yaml", "without --config"),
    Mistake("another denoiser on resume", f"{RESUME} denoiser.batch_size=3", "'denoiser.batch_size' can't be changed"),
    Mistake("broken config.yaml", RESUME, r"config\.yaml", edited("config.yaml", "data:", "data: [")),
    Mistake("a run that another process trains", RESUME, "process .* has been writing to it since", in_training),
]
"""Nothing has to be loaded to know it."""

LOADED = [
    # The command line and its keys.
    Mistake("infinite weight of a loss", f"{DIGITS} autoencoder.losses.kl.weight=.inf", r"autoencoder\.losses\.kl"),
    Mistake("no rates", f"{DIGITS} audit.target_fprs=[]", r"audit\.target_fprs"),
    Mistake("share of a mask", f"{DIGITS} audit.masks.top60.keep_fraction=1.5", r"audit\.masks\.top60.*keep_fraction"),
    Mistake("argument of another class", f"{DIGITS} data.source.path=scans", r"data\.source\.path: 'digits' .*folder"),
    Mistake("timestep outside the schedule", f"{DIGITS} audit.timesteps=[1000]", "audit.timesteps: 1000"),
    # Calibrated scores.
    Mistake("no penalty", f"{HISTORY}.inverse_penalty=0", r"audit\.calibrations\.history\.inverse_penalty: 0\.0; .* above 0"),
    Mistake("negative penalty", f"{HISTORY}.inverse_penalty=-1", r"audit\.calibrations\.history\.inverse_penalty: -1\.0; "),
    Mistake("infinite penalty", f"{HISTORY}.inverse_penalty=.inf", r"audit\.calibrations\.history\.inverse_penalty: inf"),
    Mistake(
        "calibration of an attack alone", f"{DIGITS} audit.calibrated=[sima]", "audit.calibrated: 'sima' .*write it as sima/all"
    ),
    Mistake(
        "calibration of what isn't there", f"{DIGITS} audit.calibrated=[sima/none]", "there is no 'sima/none'; name some of"
    ),
    Mistake("the same calibrated twice", f"{DIGITS} audit.calibrated=[sima/all,sima/all]", "'sima/all' stands there twice"),
    Mistake(
        "calibrated once more", f"{DIGITS} audit.calibrated=[sima_history/all]", "'sima_history/all' is calibrated already"
    ),
    Mistake(
        "a calibrated score's label", f"{DIGITS} audit.attacks.sima_history.class=sima", "'sima_history' is taken by a calib"
    ),
    Mistake("label of a calibration", f"{DIGITS} audit.calibrations.a/b.class=history", "audit.calibrations: the label 'a/b'"),
    Mistake(
        "too few to calibrate on", f"{DIGITS} audit.max_samples=8", r"audit\.calibrations: a half .*audit\.calibrations=\[\]"
    ),
    Mistake("calibration that raises", YOURS, r"mine\.py:10", file("mine.py", f"{CALIBRATION}return 1 / 0\n")),
    Mistake(
        "calibration of another shape",
        YOURS,
        "mine.*score: it returns",
        file("mine.py", f"{CALIBRATION}return Calibrated(known.level, {{}})\n"),
    ),
    # Devices.
    Mistake("no such accelerator", f"{DIGITS} trainer.accelerator=mps", r"trainer\.accelerator: 'mps' is not there"),
    Mistake("devices that aren't there", f"{DIGITS} trainer.devices=99", r"trainer\.devices: 99"),
    # Data.
    Mistake("no such folder", FOLDER, "there is no folder .*images"),
    Mistake("empty folder", FOLDER, "images", lambda folder: (folder / "images").mkdir()),
    Mistake("broken image", FOLDER, r"07\.png", broken_image),
    Mistake("too few images", FOLDER, "15.*8|8.*15", lambda folder: images(folder, 8)),
    Mistake("metadata with a header only", FOLDER, r"metadata\.csv", metadata("file_name,age\n")),
    Mistake("metadata with absolute paths", FOLDER, r"metadata\.csv", metadata("file_name\n/images/00.png\n")),
    Mistake("a text called parquet", f"{PARQUET}a.parquet", r"a\.parquet", file("a.parquet", "text")),
    Mistake("pattern without a match", f"{PARQUET}'shards/*.parquet'", "no file matches"),
    Mistake("a folder for files", f"{PARQUET}images", "images.*folder", images),
    Mistake("parquet without images", f"{PARQUET}table.parquet", "image_column", parquet),
    Mistake("index file without keys", f"{DIGITS} data.index_file=index.npz", "mia_train_idxs", index_file(a=[1])),
    Mistake(
        "index beyond the data",
        f"{DIGITS} data.index_file=index.npz data.num_members=null data.num_heldout=null data.num_public=null",
        "9999",
        index_file(mia_train_idxs=[1, 9999], mia_eval_idxs=[2, 3], public_idxs=[4, 5]),
    ),
    Mistake("a Hub data set offline", f"{DIGITS} data.source='{{class: hub, repo_id: a/b}}'", "a/b.*parquet"),
    # Plug-ins.
    Mistake(
        "name that is taken",
        MINE,
        "already registered",
        file("mine.py", ATTACK.replace('"mine"', '"sima"') + "return latent\n"),
    ),
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
    # Going on.
    Mistake(
        "config.yaml was edited", RESUME, r"learning_rate=0\.5, but.*0\.001; put it", edited("config.yaml", "0.001", "0.5")
    ),
    Mistake("fewer epochs than it has", f"{RESUME} trainer.max_epochs=1", "has 2 epochs already"),
    Mistake(
        "scores of another seed", RESUME, r"epoch-0\.safetensors: the scores of seed 7 are no history of seed 0", other_scores
    ),
    Mistake("a checkpoint beside scores of another seed", LAST, "the scores of seed 7 are no history of seed 0", other_scores),
    Mistake("another split", RESUME, r"split\.npz holds split", other_split),
    Mistake("truncated split", RESUME, r"split\.npz", lambda folder: cut(folder, f"{RUN}/split.npz")),
    Mistake("last.ckpt is truncated", RESUME, "truncated", lambda folder: cut(folder, f"{RUN}/checkpoints/last.ckpt")),
]
"""Images, weights, networks or the classes that take an argument have to be loaded to know it."""
