"""What a look at trajectories found, as plain numbers: tables, figures and files are made of it without the model."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ldm_privacy.trajectories.captions import CAPTION_GROUPS
from ldm_privacy.trajectories.deviation import Deviation, deviation, memoriser_coefficients
from ldm_privacy.trajectories.guided import Guided
from ldm_privacy.types import Image, Intervals

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ldm_privacy.trajectories.claims import Claim

MEANS = {
    **{name: name for name in ("d1", "d2", "error", "gap", "gap_mean", "similarity", "replicated")},
    "k": "gain",
    "nearest": "nearest_mean",
    "other_duplicate": "took_duplicate",
}
"""Name of a curve and of a number in metrics.json -> attribute of `Guided`, (captions,)."""


@dataclass(frozen=True, eq=False)
class Shown:
    """Pictures of one caption, in [-1, 1], on the CPU, at the largest guidance scale.

    Attributes:
        row: Of the captions.
        early: (early steps, image_channels, height, width), the decoded clean predictions of the first seed's first steps.
        generated: (seeds, ...), its guided samples.
        own: (1, ...), the training image that belongs to the caption.
        nearest: (seeds, ...), the nearest member of each sample.
    """

    row: int
    early: Image
    generated: Image
    own: Image
    nearest: Image


@dataclass(frozen=True, eq=False)
class TrajectoryReport:
    """A look at the trajectories of some captions.

    Attributes:
        time: In words: "epoch 20".
        sample_index: (captions,) int64, ascending: whose captions they are.
        group: One of `CAPTION_GROUPS` each.
        words: The captions in words; None where the condition has none.
        num_members: (captions,) int64, audited members that have the caption.
        unit: (captions,) int64, what intervals resample whole: captions that share words, or a patient.
        abar: (steps + 1,), of the start and of every state.
        num_early: Steps that `gain` and `error` are means over.
        x_is: "paired": x is the latent of the caption's own image; "generated": the final latent of the trajectory.
        guided: Guidance scale -> what was found, ascending.
        most, least: The captions of members that are memorized most and least at the largest scale, by similarity.
        intervals: Of the claims.
    """

    time: str
    sample_index: Tensor
    group: tuple[str, ...]
    words: tuple[str, ...] | None
    num_members: Tensor
    unit: Tensor
    abar: Tensor
    num_early: int
    x_is: str
    guided: Mapping[float, Guided]
    most: tuple[Shown, ...] = ()
    least: tuple[Shown, ...] = ()
    intervals: Intervals = Intervals()

    @property
    def top(self) -> float:
        """The largest guidance scale: what replication is told at."""
        return max(self.guided)

    @property
    def present(self) -> list[str]:
        """The groups that have captions."""
        return [each for each in CAPTION_GROUPS if each in self.group]

    @property
    def memorized(self) -> str:
        """The group that stands for the memorized captions: planted duplicates where there are any, members otherwise."""
        return "repeated" if "repeated" in self.group else "members"

    @property
    def shared(self) -> str:
        """How many held-out captions an audited member has too, in words; "" where none is."""
        heldout = self.num_members[self.of_group("heldout")]
        return f"{int((heldout > 0).sum())} of {len(heldout)} held-out captions are a member's too" if heldout.any() else ""

    def of_group(self, *groups: str) -> Tensor:
        """(captions,) bool: those of these groups."""
        return torch.tensor([each in groups for each in self.group])

    def against_heldout(self, group: str) -> tuple[Tensor, Tensor, Tensor | None]:
        """(captions,) bool, those of a group and the held-out ones; of these which are the group's; and their unit.

        A unit is cut where it lies on both sides: what they share would make the interval of a difference narrower. None where
        each caption is its own.
        """
        rows = self.of_group(group, "heldout")
        is_group = self.of_group(group)[rows]
        return rows, is_group, own_unit(2 * self.unit[rows] + is_group.long())

    @cached_property
    def means(self) -> dict[str, dict[float, dict[str, float]]]:
        """Group -> guidance scale -> name (`MEANS`) -> mean over the group's captions."""
        rows = {group: self.of_group(group) for group in self.present}
        return {
            group: {
                scale: {name: float(getattr(guided, attribute)[each].mean()) for name, attribute in MEANS.items()}
                for scale, guided in self.guided.items()
            }
            for group, each in rows.items()
        }

    @cached_property
    def claims(self) -> "tuple[Claim, ...]":
        """See `claims_of`; made once."""
        from ldm_privacy.trajectories.claims import claims_of

        return claims_of(self, self.intervals)

    def ideal(self, guidance_scale: float = 1.0) -> Deviation:
        """D1 and D2 of the ideal memoriser on the same schedule, one row; see `memoriser_coefficients`."""
        return deviation(memoriser_coefficients(self.abar, guidance_scale), self.abar[1:])

    def figures(self) -> "dict[str, Figure]":
        """See `trajectory_figures`."""
        from ldm_privacy.trajectories.figures import trajectory_figures

        return trajectory_figures(self)

    def numbers(self) -> dict[str, Any]:
        """For metrics.json; the captions are in captions.csv."""
        heldout = self.of_group("heldout")
        shared = int((self.num_members[heldout] > 0).sum())
        return {"time": self.time, "num_heldout_shared": shared, "means": self.means, "claims": self.claims}

    def write(self, folder: Path) -> None:
        """captions.csv."""
        from ldm_privacy.trajectories.captions_file import write_captions

        write_captions(self, folder / "captions.csv")


def own_unit(unit: Tensor) -> Tensor | None:
    """What a metric takes as `group`: the units, or None where each caption is its own."""
    return None if len(unit.unique()) == len(unit) else unit
