"""What the files of an evaluation are made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import TypeVar

import torch
from matplotlib.figure import Figure

from ldm_privacy.evidence.gate import Ruling
from ldm_privacy.evidence.gather import Evidence
from ldm_privacy.evidence.requirements.requirement import RequirementAnswer, answers
from ldm_privacy.report.exposed_file import FilesOf, without_files
from ldm_privacy.report.figures.base import picture
from ldm_privacy.report.page.blocks import ImagePair, Picture
from ldm_privacy.types import Images

T = TypeVar("T")


@dataclass(frozen=True)
class Evaluation:
    """An audit with its evidence, its figures, and what a reader needs to repeat it; every section draws from it.

    Attributes:
        evidence: Of the audit.
        figures: By name.
        images: Sample indices -> images.
        files: Sample indices -> how the data name the file of each.
        name: Of the run or checkpoint.
        epoch: Finished epochs of the denoiser, or whatever else `unit` counts; None where its training isn't known.
        facts: Name -> value: data, split, seeds, versions.
        target: Name -> value: what was audited.
        commands: To train and to evaluate.
        config: The resolved config as YAML.
        unit: "epoch" or "step".
        has_decoder: What was audited is latents; False in pixel space.
        results: What watchers found that look in an evaluation, by label.
        ruling: Of the gate; None where there are no limits.
        date: Of the audit, as 2026-01-31, in UTC.
        onsets: A sentence for each onset; empty where the training is not known.
        forecasts: What pilots foretold of it and what came of that; what this training foretells of others.
    """

    evidence: Evidence
    figures: Mapping[str, Figure]
    images: Images
    name: str
    epoch: int | None
    facts: Mapping[str, str]
    target: Mapping[str, str] = field(default_factory=dict)
    commands: Sequence[str] = ()
    config: str = ""
    onsets: Sequence[str] = ()
    forecasts: Sequence[str] = ()
    unit: str = "epoch"
    has_decoder: bool = True
    results: Mapping[str, object] = field(default_factory=dict)
    files: FilesOf = without_files
    ruling: Ruling | None = None
    date: str = field(default_factory=lambda: datetime.now(UTC).date().isoformat())

    @cached_property
    def answers(self) -> list[RequirementAnswer]:
        """What the audit says of every requirement."""
        return answers(self.evidence, results=self.results, ruling=self.ruling)

    def result(self, kind: type[T]) -> T | None:
        """The first of the results that is of that kind."""
        return next((each for each in self.results.values() if isinstance(each, kind)), None)

    def pictures(self, captions: Mapping[str, str]) -> tuple[Picture, ...]:
        """Those of the named figures that are there, under their captions, in that order."""
        return tuple(picture(self.figures[name], caption) for name, caption in captions.items() if name in self.figures)

    def pair(self, member: int, heldout: int, caption: str) -> ImagePair:
        """The images of a member and of a held-out sample side by side, by their sample indices."""
        images = self.images(torch.tensor([member, heldout]))
        return ImagePair(images[0], images[1], (f"member {member}", f"held-out {heldout}"), caption)
