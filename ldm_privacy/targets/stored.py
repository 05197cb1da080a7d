"""A part's weights as they lie in a folder: which files they are, and why they can't be used."""

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ldm_privacy.errors import UserError
from ldm_privacy.models.folder import settings_of
from ldm_privacy.models.weights import header_of

_PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".msgpack", ".h5")
_LIVE = (".base_layer.", ".lora_A.", ".lora_B.", ".lora_magnitude_vector.")
"""In the names of weights that were saved from under an adapter."""


def weight_files(folder: Path, stem: str, variant: str | None) -> list[Path]:
    """`<stem>[.<variant>].safetensors`, one file or its shards, which are checked against their index.

    Raises:
        UserError: There is no such file, which names what there is instead (other variants, pickles); it is not whole.
    """
    file = folder / f"{stem}.{variant}.safetensors" if variant else folder / f"{stem}.safetensors"
    if file.is_file():
        return [file]
    for index in (f"{file}.index.json", folder / f"{stem}.safetensors.index.{variant}.json"):
        if Path(index).is_file():
            return _shards(Path(index))
    there = sorted(each.name for each in folder.iterdir() if each.is_file())
    named = re.compile(rf"{stem}\.(\w+)\.safetensors(\.index\.json)?")
    variants = sorted({found[1] for name in there if (found := named.fullmatch(name))})
    if variants and variant is None:
        raise UserError(f"{folder}: holds weights of the variant {variants[0]} alone; say target.variant={variants[0]}.")
    if variant and f"{stem}.safetensors" in there:
        raise UserError(
            f"{folder}: holds no {file.name}, but {stem}.safetensors; variants are not mixed. Leave target.variant out, "
            "or download that file."
        )
    if pickles := [name for name in there if name.endswith(_PICKLES)]:
        raise UserError(
            f"{folder}: holds {pickles[0]} and no {file.name}; a pickle can run code and isn't read. Load and save it once "
            "where you trust it: pipe.save_pretrained(FOLDER, safe_serialization=True)."
        )
    others = f" (there: target.variant={', '.join(variants)})" if variants else ""
    raise UserError(f"{file}: does not exist{others}; the folder is not whole. Download it again.")


def check_names(folder: Path, settings: Mapping[str, Any], weights: Collection[str]) -> None:
    """Raise UserError where weights were saved from under an adapter, or can't be as many layers as the settings ask for."""
    if live := [name for name in weights if any(each in name for each in _LIVE)]:
        raise UserError(
            f"{folder}: was saved with a live adapter ({len(live)} weights, the first '{live[0]}'), so its own weights lie "
            "under other names. Save it after pipe.fuse_lora() and pipe.unload_lora_weights(), or audit the adapter with base=."
        )
    for name, value in settings.items():  # layers cost time and memory before any weight is looked for
        layers = [int(each) for each in re.findall(r"\b\d+\b", str(value))] if "layers" in name else []
        if max([*layers, len(value) if isinstance(value, list) else 0]) > max(len(weights), 64):
            raise UserError(
                f"{folder}: can't be used: its settings ask for more {name} than the file's {len(weights)} weights."
            )


def digest_of(settings: Mapping[str, Any], weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of settings and weights: of the numbers, wherever and however they lie. A second per GiB or two."""
    own = {name: value for name, value in settings.items() if not name.startswith("_")}  # without the library's remarks
    digest = hashlib.sha256(json.dumps(own, sort_keys=True, default=str).encode())
    for name in sorted(weights):
        value = weights[name].contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _shards(index: Path) -> list[Path]:
    """The files that an index names. Raises UserError where one is missing or holds other names than it says."""
    places = settings_of(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(each, str) and each == Path(each).name for each in places.values()):
        raise UserError(f"{index}: doesn't say which files the weights lie in (weight_map: name -> file beside it).")
    files = [index.parent / shard for shard in sorted(set(places.values()))]
    for file in files:
        if not file.is_file():
            raise UserError(f"{file}: does not exist, but {index.name} names it; download it again.")
        if other := {name for name, place in places.items() if place == file.name} ^ {*header_of(file)[0]}:
            raise UserError(f"{file}: holds other weights than {index.name} says, as '{min(other)}'.")
    return files
