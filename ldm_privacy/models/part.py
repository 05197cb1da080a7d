"""A part of somebody else's pipeline: where its settings and weights lie, and the SHA-256 that tells them from others."""

import hashlib
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
        mend = "say where that base lies now: base=FOLDER"
        try:
            part = cls.find(place, subfolder=record.get("subfolder"), revision=record.get("revision"))
        except FileNotFoundError as error:
            raise AnotherBase(f"base: what it was trained on is not in '{place}' ({error}); {mend}.") from None
        if part.sha256 != record.get("sha256"):
            raise AnotherBase(
                f"base: {part.weights.parent} is not what it was trained on: SHA-256 {part.sha256[:12]}, not "
                f"{str(record.get('sha256'))[:12]}; {mend}."
            )
        return part

    @cached_property
    def sha256(self) -> str:
        """Of both files, byte by byte."""
        digest = hashlib.sha256(self.config.read_bytes())
        with self.weights.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()

    def settings(self, kind: str) -> dict[str, Any]:
        """What its config says. Raises UserError where it is of another class of diffusers."""
        settings = settings_of(self.config)
        if (found := settings.get("_class_name", kind)) != kind:
            raise UserError(f"{self.config} describes a {found}, and {'an' if kind[0] in 'AU' else 'a'} {kind} is needed")
        return settings
