"""Which attack was the strongest of an audit, remembered beside the frontier."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ldm_privacy.evidence.strongest import Strongest
from ldm_privacy.types import Estimate, Intervals

FORMAT = 2
"""Another one where `strongest` finds something else in the same scores."""


class KnownStrongest:
    """The strongest attacks of audits, a file each: which of hundreds is the strongest takes a while, and audits don't change.

    Args:
        folder: Made at the first write; it can be deleted at any time.
        intervals: How those of the attacks are made.
    """

    def __init__(self, folder: Path, intervals: Intervals):
        self.folder, self._intervals = folder, intervals

    def get(self, audit: Path) -> Strongest | None:
        """Of the audit with that file of scores, if it is the same as when it was stored."""
        path = self._path(audit)
        try:
            with safe_open(path, framework="pt") as file:
                record = json.loads(file.metadata()["strongest"])
                auroc, tpr = (Estimate(**record[name]) for name in ("auroc", "tpr"))
                index, error = (file.get_tensor(name) for name in ("sample_index", "error"))
                return Strongest(auroc, tpr, tuple(record["chosen"]), index, error, record["unseen"])
        except (SafetensorError, OSError, ValueError, KeyError, TypeError):
            return None

    def put(self, audit: Path, found: Strongest) -> None:
        """Store it, whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        record = {"auroc": asdict(found.auroc), "tpr": asdict(found.tpr), "chosen": found.chosen, "unseen": found.unseen}
        path = self._path(audit)
        temporary = path.with_suffix(".tmp")
        tensors = {"sample_index": found.sample_index, "error": found.error}
        save_file(tensors, temporary, metadata={"strongest": json.dumps(record)})
        temporary.replace(path)

    def _path(self, audit: Path) -> Path:
        state = audit.stat()
        key = f"{FORMAT} {self._intervals} {audit.resolve()} {state.st_size} {state.st_mtime_ns}"
        name = hashlib.sha256(key.encode()).hexdigest()
        return self.folder / f"{name[:32]}.safetensors"
