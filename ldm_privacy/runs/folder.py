"""The folder of one run and the names in it."""

import itertools
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from ldm_privacy.errors import UserError
from ldm_privacy.targets.place import LAST, OF_AUTOENCODER


class RunFolder:
    """`runs/<name>/` and what lies in it.

    Attributes:
        path: The folder.
        config: The resolved config, config.yaml.
        metrics: metrics.csv, tidy: stage,epoch,series,value.
        split: split.npz, who is a member.
        autoencoder: The finished autoencoder as a diffusers folder; it exists once stage 1 is done and is for others to use.
        checkpoints: Folder of checkpoints; `last`, `before_onset`, `under_limit` and `autoencoder_last` lie in it.
        store: Folder of what the codec makes of the images: latents, influence, distortion, reconstruction errors.
        figures: Folder of pictures.
        evaluation: Folder of the last audit's evidence.
        scores: Folder of every audit's scores, under every attack and mask.
        lora, pipeline: Folders of what was fine-tuned, as diffusers loads it: an adapter's file, or a whole pipeline.
    """

    def __init__(self, path: Path):
        self.path = path
        self.config, self.metrics, self.split = path / "config.yaml", path / "metrics.csv", path / "split.npz"
        self.autoencoder, self.store, self.figures = path / "autoencoder", path / "store", path / "figures"
        self.evaluation, self.scores, self.checkpoints = path / "evaluation", path / "scores", path / "checkpoints"
        self.lora, self.pipeline = path / "lora", path / "pipeline"
        self.last, self.autoencoder_last = self.checkpoints / LAST, self.checkpoints / OF_AUTOENCODER
        self.before_onset, self.under_limit = self.checkpoints / "before-onset.ckpt", self.checkpoints / "under-limit.ckpt"

    def write_config(self, text: str) -> None:
        """Write config.yaml, whole or not at all."""
        temporary = self.config.with_suffix(".tmp")
        temporary.write_text(text)
        os.replace(temporary, self.config)

    @classmethod
    def around(cls, path: Path) -> "RunFolder":
        """The run that a checkpoint or a file of an evaluation lies in; the file's own folder where it lies in none."""
        folder = path.parent if path.parent.name else path.absolute().parent
        is_of_run = folder.name == "checkpoints" or folder.name.startswith("evaluation")
        return cls(folder.parent if is_of_run else folder)

    @classmethod
    def create(cls, output_dir: Path, name: str) -> "RunFolder":
        """Make the folder `name`, or the next free of `name-2`, `name-3`, ...: no run is ever written over.

        Raises UserError where the name is no file name, or the folder can't be made.
        """
        check_name(name)
        check_writable(output_dir, "output_dir")
        try:
            folder = cls(next_free(output_dir / name))
        except OSError as error:
            raise UserError(f"output_dir: '{output_dir / name}' can't be made ({error.strerror}).") from None
        folder.checkpoints.mkdir()
        folder.figures.mkdir()
        return folder

    @classmethod
    def open(cls, name: str, *, config: str | None = None) -> "RunFolder":
        """An existing run. Raises UserError where there is none, or where another config is named beside it."""
        if config is not None or not name:
            raise UserError("resume: name a run's folder, as in resume=runs/digits, without --config: its own is stored there.")
        path = Path(name)
        folder = cls(path)
        if not folder.config.is_file():
            raise UserError(f"resume: '{path}' is no run: it has no config.yaml. Name a folder like runs/digits.")
        folder.checkpoints.mkdir(exist_ok=True)
        folder.figures.mkdir(exist_ok=True)
        return folder


def next_free(path: Path, *, first: int = 1) -> Path:
    """Make the folder of that name, or of `<name>-2`, `<name>-3`, ..., whichever is free: two processes get two.

    `first` is the least number to try; 1 has none in the name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    numbers = itertools.count(first)
    while True:
        number = next(numbers)
        folder = path if number == 1 else path.with_name(f"{path.name}-{number}")
        with suppress(FileExistsError):
            folder.mkdir()
            return folder


def check_file(path: Path, key: str) -> None:
    """Raise UserError, which names the key, where no file can be made or replaced at that path."""
    if path.is_dir():
        raise UserError(f"{key}: '{path}' is a folder. Name a file with {key}=FILE.")
    if path.exists() and not os.access(path, os.W_OK):
        raise UserError(f"{key}: '{path}' can't be written to. Name another place with {key}=FILE.")
    check_writable(path.parent, key, "FILE")


def check_writable(folder: Path, key: str, what: str = "FOLDER") -> None:
    """Raise UserError, which names the key, where no file can be made in a folder; that need not be there and isn't made."""
    there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    at, mend = "" if there == folder else f"'{folder}' can't be made: ", f"Name another place with {key}={what}."
    if not there.is_dir():
        raise UserError(f"{key}: {at}'{there}' is a file, not a folder. {mend}")
    try:
        tempfile.TemporaryFile(dir=there).close()  # without a name: what the permissions say is not all there is to it
    except OSError as error:
        raise UserError(f"{key}: {at}'{there}' can't be written to ({error.strerror}). {mend}") from None


def check_name(name: str) -> None:
    """Raise UserError for a name that can't be a folder's."""
    if not name or name != Path(name).name or name.startswith(".") or len(name.encode()) > 200:
        raise UserError(f"name: '{name}' can't be a folder's name. Use letters, digits, '-' and '_', 200 at most.")
