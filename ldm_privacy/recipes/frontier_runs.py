"""From the folders of runs to trainings: their audits' scores, the quality at each look, whether they have ended."""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ldm_privacy.audit.kept import KeptScores
from ldm_privacy.audit.samples import is_calibration
from ldm_privacy.audit.score_file import read_scores
from ldm_privacy.config.compose import read_yaml
from ldm_privacy.data.split import Split
from ldm_privacy.errors import UserError
from ldm_privacy.evidence.strongest import Strongest, strongest
from ldm_privacy.evidence.trainings import Point, Training
from ldm_privacy.runs.folder import RunFolder
from ldm_privacy.runs.history import ScoreHistory
from ldm_privacy.runs.series import SeriesFile
from ldm_privacy.types import Estimate, Intervals

QUALITIES = ("kid_heldout", "kid_random_heldout")
"""Distances of generations to held-out images, lower = better; the first that all trainings have is the quality."""
OWN = ("name", "seed", "data.seed", "output_dir", "wandb.")
"""Keys that differ between runs of one setting."""


@dataclass(frozen=True)
class Run:
    """What the folder of a run holds of its training.

    Attributes:
        folder: Of the run.
        config: Its resolved config.
    """

    folder: RunFolder
    config: Mapping[str, Any] = field(repr=False)

    @classmethod
    def open(cls, path: Path) -> "Run":
        """Raises UserError where there is no run."""
        folder = RunFolder(path)
        if not folder.config.is_file():
            raise UserError(f"{path}: no run: it has no config.yaml. Name a folder like runs/digits.")
        return cls(folder, read_yaml(folder.config))

    @property
    def seed(self) -> int:
        """Of the training."""
        return int(self.config.get("seed") or 0)

    @cached_property
    def history(self) -> ScoreHistory | None:
        """Its audits' scores; None before the first."""
        return ScoreHistory.found(self.folder.scores)

    @cached_property
    def evaluation(self) -> Mapping[str, Any]:
        """metrics.json of the evaluation at its end; {} before, and while it is written."""
        try:
            return json.loads((self.folder.evaluation / "metrics.json").read_text())
        except (OSError, ValueError):
            return {}

    @property
    def has_ended(self) -> bool:
        """Whether its last audit is that of its last epoch, or was evaluated: a training may be stopped by a limit."""
        if self.history is None:
            return False
        epoch, last = max(self.history.audits), self.config.get("trainer", {}).get("max_epochs", math.inf)
        return epoch >= last or self.evaluation.get("epoch") == epoch

    @cached_property
    def qualities(self) -> dict[str, dict[int, Estimate]]:
        """Of each of `QUALITIES` that was looked at, epoch -> quality."""
        series, found = SeriesFile(self.folder.metrics).read("denoiser"), dict[str, dict[int, Estimate]]()
        for name in QUALITIES:
            ends = (f"quality/{name}", f"quality/{name}_lower", f"quality/{name}_upper")
            looks = {epoch: [series.get((epoch, each), math.nan) for each in ends] for epoch, each in series if each == ends[0]}
            for watched in self.evaluation.get("watched", {}).values():
                if name in watched:
                    looks.setdefault(self.evaluation["epoch"], [math.nan if x is None else x for x in watched[name]])
            # The last rows of a run in training may not be whole; a denoiser that diverged has no quality.
            whole = {epoch: each for epoch, each in looks.items() if all(map(math.isfinite, each))}
            if whole:
                found[name] = {epoch: Estimate(*each) for epoch, each in whole.items()}
        return found

    def epochs(self, quality: str) -> list[int]:
        """Those that have an audit and that quality."""
        return [epoch for epoch in self.history.audits if epoch in self.qualities.get(quality, {})] if self.history else []


def apart(configs: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """By label, the keys in which configs differ, as overrides; without those that differ between runs of one setting."""
    flat = {label: dict(_flat(config)) for label, config in configs.items()}
    keys = dict.fromkeys(key for each in flat.values() for key in each)
    differing = [key for key in keys if len({str(each.get(key)) for each in flat.values()}) > 1 and not key.startswith(OWN)]
    return {label: [f"{key}={each[key]}" for key in differing if key in each] for label, each in flat.items()}


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


class Store:
    """The strongest attacks of audits, a file each: which of hundreds is the strongest takes a while, and audits don't change.

    Args:
        folder: Made at the first write; it can be deleted at any time.
    """

    def __init__(self, folder: Path):
        self.folder = folder

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
        name = hashlib.sha256(f"{audit.resolve()} {state.st_size} {state.st_mtime_ns}".encode()).hexdigest()
        return self.folder / f"{name[:32]}.safetensors"


def common_quality(runs: Sequence[Run]) -> str:
    """The first of `QUALITIES` that every run has that has any. Raises UserError where none has."""
    known = [{*run.qualities} for run in runs if run.qualities]
    for name in QUALITIES:
        if known and all(name in each for each in known):
            return name
    raise UserError(
        "no run has looked at quality, which the frontier is drawn against: train with watch.quality.class=quality."
        if not known
        else f"the runs have no quality in common: each needs {QUALITIES[1]}."
    )


def training_of(run: Run, quality: str, store: Store, intervals: Intervals) -> Training | str:
    """A training, or why there is none yet, in words: it has neither audit nor quality, or groups that nothing tells."""
    history, name = run.history, str(run.folder.path)
    if history is None:
        return f"{name}: no audit yet"
    epochs = run.epochs(quality)
    if not epochs:
        return f"{name}: no audit with {quality}"
    split, group = Split.load(run.folder.split), None
    if run.config.get("data", {}).get("group_column"):
        # Which samples belong together stands in the scores of the evaluation alone.
        if not (scores := run.folder.evaluation / "scores.parquet").is_file():
            return f"{name}: its samples come in groups, which are known once it is evaluated"
        data = read_scores(scores).data
        group = None if data.group is None else (data.sample_index, data.group)
    points = []
    for epoch in epochs:
        audit = history.audits[epoch]
        attack = store.get(audit)
        if attack is None:
            kept = history.at(epoch)
            if kept is None:
                continue
            attack = _strongest(kept, split, group, history.provenance.cross_fit, intervals)
            store.put(audit, attack)
        points.append(Point(epoch, attack, run.qualities[quality][epoch]))
    if not points:
        return f"{name}: no audit that can be read"
    index = points[-1].attack.sample_index
    return Training(
        run.seed,
        split.hash,
        points,
        split.is_member(index),
        None if group is None else _matched(*group, index),
        has_ended=run.has_ended,
        name=name,
    )


def _strongest(
    kept: KeptScores,
    split: Split,
    group: tuple[torch.Tensor, torch.Tensor] | None,
    cross_fit: bool,
    intervals: Intervals,
) -> Strongest:
    index = kept.sample_index
    mine = None if group is None else _matched(*group, index)
    half = is_calibration(index, group=mine)
    return strongest(kept, split.is_member(index), half, group=mine, cross_fit=cross_fit, intervals=intervals)


def _matched(sample_index: torch.Tensor, value: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Values of ascending samples, at those samples."""
    return value[torch.searchsorted(sample_index, index)]
