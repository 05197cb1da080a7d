"""WebDataset shards: tar files whose members of one name are one sample."""

from dataclasses import dataclass

from datasets import Dataset

from ldm_privacy.data.prepared import prepared
from ldm_privacy.data.sources import ImageSource
from ldm_privacy.registry import IMAGE_SOURCES

_PARTS = "json."


@IMAGE_SOURCES.register("webdataset")
@dataclass(frozen=True, kw_only=True)
class WebDataset(ImageSource):
    """Tar shards (000.jpg, 000.txt, 000.json, 001.jpg, ...), rows in the order of the files.

    A `.txt` is a caption, a `.cls` a label; what a `.json` holds becomes columns of its own, except where a name is taken. All
    samples have the same parts. Read by `datasets`, which keeps a copy of the shards in its cache (HF_HOME).

    Args:
        files: A path, a glob pattern, or a list of them; what a pattern matches is sorted by path.
    """

    files: str | list[str]

    def open(self) -> Dataset:
        dataset = prepared("webdataset", self.files).flatten()
        taken = {*dataset.column_names}
        lifted = {name: name.removeprefix(_PARTS) for name in dataset.column_names if name.startswith(_PARTS)}
        return dataset.rename_columns({name: short for name, short in lifted.items() if short not in taken})
