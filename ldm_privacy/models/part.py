"""A part of somebody else's pipeline: where its settings and weights lie, and the SHA-256 that tells them from others."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ldm_privacy.errors import UserError
from ldm_privacy.models.folder import file_of, settings_of

CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"


class AnotherBase(UserError):
    """What a checkpoint was trained on is not where it says, or other files are: the checkpoint itself is whole."""


@dataclass(frozen=True)
class Part:
    """Two files of a diffusers or transformers folder, or of a repository of the Hub.

    Attributes:
        config: Its `config.json`.
        weights: Its safetensors file.
    """

    config: Path
    weights: Path

    @classmethod
    def find(cls, path: str, *, subfolder: str | None = None, revision: str | None = None, weights: str = WEIGHTS) -> "Part":
        """Downloaded where it is on the Hub. Raises FileNotFoundError with what is wrong."""
        return cls(*(file_of(path, name, subfolder=subfolder, revision=revision) for name in (CONFIG, weights)))

    @classmethod
    def of_checkpoint(cls, record: dict[str, Any]) -> "Part":
        """The part that a checkpoint was trained on, by `base` or `path`, `subfolder`, `revision` and `sha256` of its record.

        Raises AnotherBase where it isn't there, or its files are others.
        """
        place = str(record.get("path") or record.get("base"))
        key = "base" if record.get("path") is None else "autoencoder.network.path"
        try:
            part = cls.find(place, subfolder=record.get("subfolder"), revision=record.get("revision"))
        except FileNotFoundError as error:
            raise AnotherBase(f"{key}: what it was trained on is not in '{place}' ({error}); {_mend(key)}.") from None
        check_same(str(part.weights.parent), part.sha256, record.get("sha256"), key)
        return part

    @cached_property
    def sha256(self) -> str:
        """Of what the config says, but for where it was written and with what, and of the weights' file, byte by byte."""
        settings = {name: value for name, value in settings_of(self.config).items() if name[0] != "_"}
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        with self.weights.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()

    def settings(self, kind: str) -> dict[str, Any]:
        """What its config says. Raises UserError where it is of another class of diffusers."""
        settings = settings_of(self.config)
        if (found := settings.get("_class_name", kind)) != kind:
            raise UserError(f"{self.config} describes a {found}, and {'an' if kind[0] in 'AU' else 'a'} {kind} is needed")
        return settings


def check_same(where: str, found: str, trained_on: object, key: str = "base") -> None:
    """Raise AnotherBase where what lies there now, at what `key` names, has another SHA-256 than what was trained on."""
    if found != trained_on:
        raise AnotherBase(
            f"{key}: {where} is not what it was trained on: SHA-256 {found[:12]}, not {str(trained_on)[:12]}; {_mend(key)}."
        )


def _mend(key: str) -> str:
    return f"say where that {key.split('.')[0]} lies now: {key}=FOLDER"
