"""From the folders of runs to trainings: their audits' scores, the quality at each look, whether they have ended."""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from scipy import stats

from ldm_privacy.audit.kept import KeptScores
from ldm_privacy.audit.samples import is_calibration
from ldm_privacy.audit.score_file import read_scores
from ldm_privacy.config.audit_sections import AuditConfig
from ldm_privacy.config.compose import read_yaml
from ldm_privacy.data.split import Split
from ldm_privacy.errors import UserError
from ldm_privacy.evidence.strongest import Strongest, strongest
from ldm_privacy.evidence.trainings import Point, Training
from ldm_privacy.recipes.frontier.store import KnownStrongest
from ldm_privacy.recipes.known import data_of, difference, quality_of
from ldm_privacy.runs.folder import RunFolder
from ldm_privacy.runs.history import ScoreHistory
from ldm_privacy.runs.series import SeriesFile
from ldm_privacy.targets.record import Checkpoint
from ldm_privacy.types import Estimate, Intervals
from ldm_privacy.watch.quality_report import primary_of

HELDOUT = "_heldout"
"""Ends the name of a distance of generations to held-out images; lower = better."""
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
        """Of each distance to held-out images that was looked at, epoch -> quality, its bounds those of `Intervals()`."""
        series = SeriesFile(self.folder.metrics).read("denoiser")
        names = {name.removeprefix("quality/") for _, name in series if name.startswith("quality/") and name.endswith(HELDOUT)}
        watched = self.evaluation.get("watched", {}).values()
        found = dict[str, dict[int, Estimate]]()
        for name in sorted(names | {name for each in watched for name in each if name.endswith(HELDOUT)}):
            ends = (f"quality/{name}", f"quality/{name}_lower", f"quality/{name}_upper")
            looks = {
                epoch: _rescaled([series.get((epoch, end), math.nan) for end in ends], self.config)
                for epoch, each in series
                if each == ends[0]
            }
            for numbers in (each[name] for each in watched if name in each):
                numbers = [math.nan if x is None else x for x in numbers]
                looks.setdefault(self.evaluation["epoch"], _rescaled(numbers, self.evaluation.get("config") or self.config))
            # The last rows of a run in training may not be whole; a denoiser that diverged has no quality.
            whole = {epoch: each for epoch, each in looks.items() if all(map(math.isfinite, vars(each).values()))}
            if whole:
                found[name] = whole
        return found

    @property
    def feature_sha256(self) -> str | None:
        """Of the network that `kid` is on, as its config or its evaluation says; None where neither does (yet)."""
        words = (str(each.get("features", {}).get("kid", "")) for each in self.evaluation.get("watched", {}).values())
        said = next((found[1] for each in words if (found := re.search(r"sha256 ([0-9a-f]{64})", each))), None)
        return (quality_of(self.config) or {}).get("sha256") or said

    @cached_property
    def content_hash(self) -> str | None:
        """Of its images, as its checkpoint says; None where there is none."""
        return Checkpoint.read(self.folder.last).content_hash if self.folder.last.is_file() else None

    def epochs(self, quality: str) -> list[int]:
        """Those that have an audit and that quality."""
        return [epoch for epoch in self.history.audits if epoch in self.qualities.get(quality, {})] if self.history else []


def check_compared(runs: Sequence[Run], quality: str) -> None:
    """Raise UserError where a run has other images than the first, or looks at that quality otherwise.

    A source and a feature network may lie elsewhere: where both contents are known, they are compared in place of the names.
    """
    for run in runs[1:]:
        pair = (run, runs[0])
        data, looks = [data_of(each.config) for each in pair], [quality_of(each.config) or {} for each in pair]
        if data[0]["source"] != data[1]["source"]:  # checkpoints are large
            _by_content(data, "source", [each.content_hash for each in pair])
        _by_content(looks, "feature_network", [each.feature_sha256 for each in pair])
        if quality == primary_of(()) + HELDOUT:  # of fixed features
            looks = [{**look, "feature_network": None} for look in looks if look]
        differs = difference(data[0], data[1], "data")
        if not differs and len(looks) == 2 and all(looks):
            differs = difference(looks[0], looks[1], "watch.quality")
        if differs:
            raise UserError(
                f"{run.folder.path} has {differs} as {runs[0].folder.path}: their numbers can't be compared; name runs of the "
                "same images and the same watch.quality."
            )


def _by_content(told: Sequence[dict[str, Any]], key: str, hashes: Sequence[str | None]) -> None:
    for each, content in zip(told, hashes):
        if None not in hashes and each:
            each[key] = content


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


def common_quality(runs: Sequence[Run]) -> str:
    """The distance that quality is told by, of those that every run has that has any. Raises UserError where none has."""
    known = [{*run.qualities} for run in runs if run.qualities]
    common = set.intersection(*known) if known else set()
    name = primary_of({each.removesuffix(HELDOUT) for each in common}) + HELDOUT
    if name in common:
        return name
    raise UserError(
        "no run has looked at quality, which the frontier is drawn against: train with watch.quality.class=quality."
        if not known
        else f"the runs have no quality in common: each needs {name}."
    )


def training_of(run: Run, quality: str, store: KnownStrongest, intervals: Intervals) -> Training | str:
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


def _rescaled(numbers: Sequence[float], config: Mapping[str, Any]) -> Estimate:
    """A quality (value, lower, upper), whose bounds have that config's `audit.confidence`, with those of `Intervals()`."""
    value, lower, upper = numbers
    then = (config.get("audit") or {}).get("confidence", AuditConfig.confidence)
    stretch = float(stats.norm.isf((1 - Intervals().confidence) / 2) / stats.norm.isf((1 - then) / 2))
    return Estimate(value, value - stretch * (value - lower), value + stretch * (upper - value))


def _matched(sample_index: torch.Tensor, value: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Values of ascending samples, at those samples."""
    return value[torch.searchsorted(sample_index, index)]
