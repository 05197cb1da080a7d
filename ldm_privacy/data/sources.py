"""Where images come from. A source gives one data set whose row number is the sample index."""

import os
from abc import ABC, abstractmethod
from dataclasses import dataclass

import datasets
import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from ldm_privacy.data.columns import Columns, find_columns
from ldm_privacy.data.digit_captions import described
from ldm_privacy.data.places import existing_folder
from ldm_privacy.data.prepared import explaining, prepared
from ldm_privacy.data.wide import ValueRange
from ldm_privacy.errors import UserError, reason_of
from ldm_privacy.registry import IMAGE_SOURCES, nearest_name


@dataclass(frozen=True, kw_only=True)
class ImageSource(ABC):
    """A data set of images.

    Args:
        image_column: Name of the column of images; found by its type and usual names when None.
        label_column: Name of the column of class labels; found, or none, when None.
        caption_column: Name of the column of captions; found, or none, when None.
        value_range: Of images of more than 8 bits, the values that become black and white: two numbers, or "auto": the smallest
            and the largest in the whole source, for which every row is looked at. None: the range of the images' type.
    """

    image_column: str | None = None
    label_column: str | None = None
    caption_column: str | None = None
    value_range: ValueRange = None

    @abstractmethod
    def open(self) -> Dataset:
        """The data set as it is stored."""

    def load(self) -> Dataset:
        """The data set with its image column undecoded ({"bytes", "path"} cells), so that a bad row can be named.

        Nothing is written into the working directory; the Hugging Face cache (HF_HOME) holds what `datasets` prepares. Raises
        UserError where there is no such data, or no such column.
        """
        shown = not datasets.are_progress_bars_disabled()
        datasets.disable_progress_bars()  # they would tear the run's own
        try:
            opened = self.open()
            if not isinstance(opened, Dataset):
                raise TypeError(f"open: it returns {type(opened).__name__}, not a datasets.Dataset")
            dataset = opened.with_format(None)
        finally:
            if shown:
                datasets.enable_progress_bars()
        if len(dataset) == 0:
            raise UserError("data.source: the data set has no rows.")
        return dataset.cast_column(self.columns(dataset).image, datasets.Image(decode=False))

    @property
    def side_column(self) -> str | None:
        """The column that says "member" or "heldout" where the source comes with its sides; None: they are drawn."""
        return None

    def columns(self, dataset: Dataset) -> Columns:
        """Where image, label and caption are in the loaded data set."""
        return find_columns(dataset, image=self.image_column, label=self.label_column, caption=self.caption_column)


@IMAGE_SOURCES.register("digits")
class Digits(ImageSource):
    """The 1,797 scans of handwritten digits inside scikit-learn: 8x8, grey, ten classes, no download.

    The 17 grey levels 0..16 become round(level * 255 / 16), which loses nothing. The column "text" says in words what each scan
    looks like (`data.digit_captions`). Source: Alpaydin and Kaynak, 1998, UCI "Optical Recognition of Handwritten Digits",
    test part.
    """

    def __init__(self) -> None:
        super().__init__()

    def open(self) -> Dataset:
        from sklearn.datasets import load_digits

        digits = load_digits()
        scans = np.rint(digits.images * (255.0 / 16.0)).astype(np.uint8)
        labels = ClassLabel(names=[str(name) for name in digits.target_names])
        features = Features({"image": datasets.Image(), "label": labels, "text": Value("string")})
        columns = {"image": list(scans), "label": digits.target.tolist(), "text": described(digits.images / 16, digits.target)}
        return Dataset.from_dict(columns, features=features)


@IMAGE_SOURCES.register("hub")
@dataclass(frozen=True, kw_only=True)
class Hub(ImageSource):
    """A data set of the Hugging Face Hub; its code is never run.

    Args:
        repo_id: Name on the Hub ("uoft-cs/cifar10").
        split: Part of it ("train", "train[:1000]").
        config_name: Which of its configurations, where it has several.
        revision: Commit, tag or branch.
    """

    repo_id: str
    split: str = "train"
    config_name: str | None = None
    revision: str | None = None

    def open(self) -> Dataset:
        if os.path.exists(self.repo_id):  # the library would read it in the Hub's place, or an old copy of it
            raise UserError(
                f"data.source.repo_id: '{self.repo_id}' is on this machine: use data.source.class=folder (of images), saved or "
                f"parquet; for the Hub's, run elsewhere than in {os.getcwd()}."
            )
        try:
            return datasets.load_dataset(self.repo_id, self.config_name, split=self.split, revision=self.revision)
        except (OSError, datasets.exceptions.DatasetsError) as error:
            offline = " HF_HUB_OFFLINE is set: unset it to download." if datasets.config.HF_HUB_OFFLINE else ""
            raise UserError(
                f"data.source.repo_id: can't get '{self.repo_id}' from the Hugging Face Hub ({reason_of(error)}).{offline} "
                "Name a local copy instead: data.source.class=parquet data.source.files='FOLDER/*.parquet', or "
                "data.source.class=saved data.source.path=FOLDER."
            ) from error
        except (ValueError, RuntimeError) as error:
            raise UserError(
                f"data.source: '{self.repo_id}' (split '{self.split}', config_name {self.config_name}): {reason_of(error)}."
            ) from error


@IMAGE_SOURCES.register("parquet")
@dataclass(frozen=True, kw_only=True)
class Parquet(ImageSource):
    """Parquet files with a column of images (bytes), rows in the order of the files.

    Args:
        files: A path, a glob pattern, or a list of them; what a pattern matches is sorted by path.
    """

    files: str | list[str]

    def open(self) -> Dataset:
        return prepared("parquet", self.files)


@IMAGE_SOURCES.register("saved")
@dataclass(frozen=True, kw_only=True)
class Saved(ImageSource):
    """A data set written by `save_to_disk` of Hugging Face datasets.

    Args:
        path: The folder.
        split: Which split, where the folder holds several; several of them, as in "train+test", one after the other.
    """

    path: str
    split: str | None = None

    def open(self) -> Dataset:
        path, advice = existing_folder(self.path), " For a folder of image files use data.source.class=folder."
        with explaining(f"data.source.path: {path} was not written by save_to_disk, or isn't whole", advice):
            saved = datasets.load_from_disk(str(path))
        if not isinstance(saved, DatasetDict):
            if self.split is not None:
                raise UserError(f"data.source.split: {path} holds one data set without splits; leave data.source.split out.")
            return saved
        names = [str(name) for name in saved]
        wanted = names if self.split is None and len(names) == 1 else (self.split or "").split("+")
        if unknown := [name for name in wanted if name not in names]:
            near = nearest_name(unknown[0], names)
            problem = f"there is no split '{unknown[0]}' in {path}.{near}" if self.split else "missing."
            raise UserError(f"data.source.split: {problem} Splits: {', '.join(names)}.")
        return datasets.concatenate_datasets([saved[name] for name in wanted])
