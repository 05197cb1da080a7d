"""Files of a network that is somebody else's: in a folder of diffusers or transformers, or in a repository of the Hub."""

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download

from ldm_privacy.errors import UserError, reason_of


def file_of(path: str, name: str, *, subfolder: str | None = None, revision: str | None = None) -> Path:
    """A file of the folder, or of the Hub's repository, which is downloaded. Raises FileNotFoundError with what is wrong."""
    folder = Path(path).expanduser()
    try:
        if not folder.is_dir():
            return Path(hf_hub_download(path, name, subfolder=subfolder, revision=revision))
    except (OSError, ValueError) as error:
        raise FileNotFoundError(reason_of(error)) from None
    file = folder / (subfolder or "") / name
    if not file.is_file():
        raise FileNotFoundError(f"there is no {file}")
    return file


def absolute(path: str) -> str:
    """A folder here from wherever it is looked up later; an id on the Hub as it is."""
    folder = Path(path).expanduser()
    return str(folder.absolute()) if folder.is_dir() else path


def settings_of(file: Path) -> dict[str, Any]:
    """What a `config.json` says. Raises UserError where it is none."""
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{file} is no JSON ({error})") from None
    if not isinstance(settings, dict):
        raise UserError(f"{file} holds no settings")
    return settings


def config_of(config_class: Any, settings: Mapping[str, Any]) -> Any:
    """A configuration of transformers, with those settings of a file that its class names.

    transformers would take any other along: names of code on the Hub, which it fetches and runs, among them. How a network
    answers is not the file's to say either.
    """
    # `tie_word_embeddings` is no field of T5's, and tells its first version from the second.
    known = {*inspect.signature(config_class).parameters, "tie_word_embeddings"} - {"architectures", "dtype", "return_dict"}
    return config_class(**{name: value for name, value in settings.items() if name in known})
