"""The files of a gate, checked before anything is loaded. Nothing heavy is imported here."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ldm_privacy.runs.folder import check_file


def check_gate_files(section: Mapping[str, Any]) -> None:
    """Raise UserError for a file of the section, checked or not, that can't be written."""
    for name in ("junit", "markdown"):
        if isinstance(file := section.get(name), str) and "${" not in file:
            check_file(Path(file), f"gate.{name}")
