"""Numbers that one program writes and another reads. Needs nothing but Python."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_json(path: Path | None, content: Mapping[str, Any]) -> None:
    """Whole or not at all; nothing where no file is named."""
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=1))
    os.replace(temporary, path)
