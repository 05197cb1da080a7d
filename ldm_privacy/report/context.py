"""What the sections of an evaluation's page draw from, beside the evidence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from ldm_privacy.report.figures.base import picture
from ldm_privacy.report.page.blocks import Picture
from ldm_privacy.types import Images


@dataclass(frozen=True)
class Protocol:
    """What a reader needs to repeat the evaluation.

    Attributes:
        name: Of the run or checkpoint.
        epoch: Finished epochs of the denoiser, or whatever else `unit` counts.
        facts: Name -> value: data, split, seeds, versions.
        commands: To train and to evaluate.
        config: The resolved config as YAML.
        unit: "epoch" or "step".
    """

    name: str
    epoch: int
    facts: Mapping[str, str]
    commands: Sequence[str]
    config: str
    unit: str = "epoch"


@dataclass(frozen=True)
class Context:
    """What an evaluation has beside its evidence.

    Attributes:
        protocol: How it came about.
        figures: By name.
        images: Sample indices -> images.
        onsets: A sentence for each onset; empty where the training is not known.
    """

    protocol: Protocol
    figures: Mapping[str, Figure]
    images: Images
    onsets: Sequence[str] = ()

    def pictures(self, captions: Mapping[str, str]) -> tuple[Picture, ...]:
        """Those of the named figures that are there, under their captions, in that order."""
        return tuple(picture(self.figures[name], caption) for name, caption in captions.items() if name in self.figures)
