"""A folder of a diffusers pipeline as a target."""

from pathlib import Path
from typing import ClassVar

import torch

from ldm_privacy.registry import TARGETS
from ldm_privacy.targets.door import Opening
from ldm_privacy.targets.family import family_of, is_pipeline, open_as
from ldm_privacy.targets.parts import Parts
from ldm_privacy.targets.target import Target


@TARGETS.register("diffusers_folder")
class DiffusersFolder:
    """Whatever a registered family opens."""

    takes: ClassVar[tuple[str, ...]] = ("dtype", "variant", "guidance", "num_tokens")

    @staticmethod
    def recognises(path: Path) -> bool:
        return is_pipeline(path)

    @staticmethod
    def open(path: Path, opening: Opening) -> Target:
        parts = Parts(path, device=opening.device, dtype=getattr(torch, opening.dtype), variant=opening.variant)
        return open_as(family_of(parts), parts, opening, shared=("device", "dtype", "variant"))
