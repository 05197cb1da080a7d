"""What a family of pipelines is: how its parts become one target."""

from pathlib import Path
from typing import ClassVar

from ldm_privacy.errors import UserError
from ldm_privacy.registry import FAMILIES
from ldm_privacy.targets.door import Opening
from ldm_privacy.targets.parts import INDEX, Parts
from ldm_privacy.targets.target import Target


class Family:
    """Pipelines that are built alike. A subclass writes `open`: one file each, `@FAMILIES.register("name")` above it.

    Attributes:
        pipelines: The classes of diffusers that it opens, by the name that `model_index.json` gives.
        denoiser: The part that is attacked ("unet", "transformer").
        lora_pipeline: The class of diffusers that reads its adapters' files; None where it has none.
        takes: Fields of `Opening` that it looks at, beside those of every folder.
    """

    pipelines: ClassVar[tuple[str, ...]] = ()
    denoiser: ClassVar[str] = "unet"
    lora_pipeline: ClassVar[str | None] = None
    takes: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def open(cls, parts: Parts, opening: Opening) -> Target:
        """The target of those parts. Raises UserError where one is missing, or of a kind that it doesn't know."""
        raise NotImplementedError


def family_of(parts: Parts) -> type[Family]:
    """The family of a folder. Raises UserError, with those that there are, where none opens its pipeline."""
    families: dict[str, type[Family]] = {name: FAMILIES.get(name) for name in FAMILIES}  # type: ignore[misc]
    for family in families.values():
        if parts.kind in family.pipelines:
            return family
    known = ", ".join(sorted(pipeline for family in families.values() for pipeline in family.pipelines))
    raise UserError(f"{parts.folder / INDEX}: a {parts.kind} can't be opened. These can: {known}.")


def is_pipeline(path: Path) -> bool:
    """Whether a path is a folder of diffusers."""
    return (path / INDEX).is_file()
