"""Influence on disk."""

from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from ldm_privacy.geometry.estimate import InfluenceEstimate
from ldm_privacy.geometry.store import GeometryStore


class InfluenceStore:
    """A `GeometryStore` of influence estimates; its rules and errors hold.

    Args:
        folder: Made on the first write.
    """

    def __init__(self, folder: Path | str):
        self._files = GeometryStore(folder, "influence")
        self.folder = self._files.folder

    def path(self, fingerprint: str) -> Path:
        """The file of a fingerprint."""
        return self._files.path(fingerprint)

    def get_or_compute(
        self, fingerprint: str, sample_index: Tensor, compute: Callable[[], InfluenceEstimate]
    ) -> InfluenceEstimate:
        """The stored estimate, or that of `compute`, which is stored; `from_store` says which."""
        tensors, is_found = self._files.get_or_compute(fingerprint, sample_index, lambda: _tensors(compute()))
        return InfluenceEstimate(**tensors, from_store=is_found)

    def load(self, fingerprint: str, sample_index: Tensor) -> InfluenceEstimate | None:
        """The stored estimate on the CPU; None where there is none, or only a damaged one (which is said)."""
        tensors = self._files.load(fingerprint, sample_index)
        return None if tensors is None else InfluenceEstimate(**tensors, from_store=True)

    def save(self, fingerprint: str, sample_index: Tensor, estimate: InfluenceEstimate) -> Path:
        """Write the estimate; the file that was there stays whole until the new one is."""
        return self._files.save(fingerprint, sample_index, _tensors(estimate))


def _tensors(estimate: InfluenceEstimate) -> Mapping[str, Tensor]:
    named = {name: getattr(estimate, name) for name in ("influence", "standard_error", "mask_stability", "halves")}
    return {name: value for name, value in named.items() if value is not None}
