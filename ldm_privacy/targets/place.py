"""Whether something lies at a path, before anything heavy is loaded to read it."""

import json
import os.path
import re
from collections.abc import Container, Mapping
from importlib.util import find_spec
from pathlib import Path

from ldm_privacy.errors import UserError

GENERIC = ("pytorch_lora_weights", "adapter_model", "diffusion_pytorch_model", "model")
"""What libraries call every such file."""
MOST_HEADER = 100_000_000
"""Bytes of a safetensors file's header, as the format has it."""
LAST, OF_AUTOENCODER = "last.ckpt", "autoencoder-last.ckpt"
"""What a run calls the newest checkpoints of its two stages."""


def check_is_file(path: Path) -> None:
    """Raise UserError, with the checkpoints beside it, where there is no such file."""
    if path.is_file():
        return
    what = "is a folder" if path.is_dir() else "does not exist"
    hint = _offered(path.parent) or " Checkpoints lie in runs/<name>/checkpoints/."
    raise UserError(f"{path}: {what}; name a checkpoint file.{hint}")


def check_may_be_denoiser(path: Path) -> None:
    """Raise UserError as `check_is_file`, and for what a run calls its autoencoder's checkpoint: none of it can be audited."""
    check_is_file(path)
    if path.name == OF_AUTOENCODER:
        raise UserError(
            f"{path}: it is from the autoencoder stage, and only a checkpoint of the denoiser stage can be used here."
            f"{_offered(path.parent)}"
        )


def _offered(folder: Path) -> str:
    """The denoiser's checkpoints in a folder, the newest first, as a hint; "" where there are none."""
    found = [file for file in folder.glob("*.ckpt") if file.name != OF_AUTOENCODER]
    return f" There: {', '.join(map(str, sorted(found, key=lambda file: (file.name != LAST, file))))}." if found else ""


def check_is_there(path: Path, word: str | None = None) -> None:
    """Raise UserError where nothing lies at a path; a name of the Hub is told from one that is mistyped, and never looked up.

    Args:
        path: What was named.
        word: Of the command line that names it ("ckpt").
    """
    if path.exists():
        return
    is_hub = re.fullmatch(r"[\w.-]+/[\w.-]+", str(path)) and not path.parent.exists() and not path.suffix[1:].isalpha()
    hub = f" A model of the Hub is downloaded first: hf download {path} --local-dir {path}." if is_hub else ""
    raise UserError(f"{f'{word}: ' if word else ''}{path} does not exist; name a folder or a file here.{hub}")


def check_may_be_target(path: Path, beside: Container[str]) -> None:
    """Raise UserError where a path is nothing that can be opened, as far as names tell: of files and of the tensors in them.

    `beside`: the words that name what lies beside it ("base", "layout").
    """
    weights = ".safetensors"
    known = ("model_index.json", *(f"{name}{weights}" for name in GENERIC))
    if path.is_dir():
        if checkpoints := _offered(path / "checkpoints") or _offered(path):
            raise UserError(f"ckpt: {path} is the folder of a run; name one of its checkpoints.{checkpoints}")
        if not any((path / name).is_file() for name in known):
            raise UserError(
                f"ckpt: {path} holds {' and '.join(f'no {name}' for name in known[:3])}; name a model's folder or file."
            )
    elif path.suffix != weights:
        hint = " A pickle can run code when it is read: convert it first." if path.suffix in (".bin", ".pt", ".pth") else ""
        raise UserError(f"ckpt: {path} is no checkpoint of this program (.ckpt) and no {weights} file.{hint}")
    elif "base" not in beside and any(re.search(r"lora[._]", name, re.IGNORECASE) for name in _tensors(path)):
        raise UserError(f"ckpt: {path} is an adapter (LoRA); name the folder of the model that it belongs to: base=FOLDER.")


def _tensors(file: Path) -> list[str]:
    """Names in the header of a safetensors file; none where it can't be read, which is told by who reads it."""
    try:
        with file.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(size)) if size <= min(MOST_HEADER, file.stat().st_size) else None
    except (OSError, ValueError, RecursionError):
        return []
    return list(header) if isinstance(header, dict) else []


def target_name(path: Path) -> str:
    """What a target is called: its file's or folder's name; the folder's where the file has the name that all have."""
    path = Path(os.path.abspath(path))  # without "..", and without following links: what a cache calls its files is no name
    return path.parent.name if path.is_file() and path.stem in GENERIC else path.stem if path.is_file() else path.name


def check_installed(what: str, *libraries: str) -> None:
    """Raise UserError where one of the libraries that reading something takes isn't installed."""
    if missing := [name for name in libraries if find_spec(name) is None]:
        raise UserError(f"{what}: needs {' and '.join(missing)}: pip install 'ldm-privacy[diffusers]'.")


def check_base(base: str | None, parts: Mapping[str, tuple[str, str]]) -> None:
    """Raise UserError where a base, as far as names and its config files tell, is none that can be fine-tuned.

    Args:
        base: A folder of diffusers; an id on the Hub is looked up later.
        parts: Folder in it -> what its weights' file is called, and class of its network.

    The index, scheduler and tokenizer are asked for too: what is saved at the end holds them.
    """
    mend = "name a diffusers folder, or its id on the Hub: base=FOLDER"
    if base is None:
        raise UserError(f"base: missing; {mend}.")
    folder = Path(base).expanduser()
    if not folder.is_dir():
        if folder.exists() or not re.fullmatch(r"[\w.-]+/[\w.-]+", base):
            raise UserError(f"base: there is no folder {base}; {mend}.")
        return
    for name in ("model_index.json", "scheduler/scheduler_config.json", "tokenizer/tokenizer_config.json"):
        if not (folder / name).is_file():
            raise UserError(f"base: there is no {folder / name}; {mend}.")
    for part, (weights, kind) in parts.items():
        for name in ("config.json", weights):
            if not (folder / part / name).is_file():
                raise UserError(f"base: there is no {folder / part / name}; {mend}.")
        try:
            settings = json.loads((folder / part / "config.json").read_text(encoding="utf-8"))
        except ValueError:
            raise UserError(f"base: {folder / part / 'config.json'} is no JSON; {mend}.") from None
        found = settings.get("_class_name") or next(iter(settings.get("architectures") or []), kind)
        if found != kind:
            raise UserError(f"base: {folder / part} is a {found}, and of these a {kind} alone can be fine-tuned here; {mend}.")
