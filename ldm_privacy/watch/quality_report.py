"""What a look at the quality of generations found, as plain numbers and a few pictures."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from ldm_privacy.pictures import image_grid
from ldm_privacy.types import Estimate, Image

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIDES = ("heldout", "members", "gap", "reconstructions")


@dataclass(frozen=True, eq=False)
class QualityReport:
    """A look at the quality of generations.

    Attributes:
        time: In words: "epoch 20".
        estimates: `<distance>_<side>` -> the distance with its interval: of the generations to held-out images ("heldout") and
            to members ("members"), the latter less the former ("gap"), and of held-out images through the codec to other
            held-out ones ("reconstructions").
        num_generated: Generations.
        num_reference: Images of each side that they are compared with.
        num_reconstructed: Reconstructions, and held-out images that those are compared with; 0 where there are none.
        how: How the images were generated, in words.
        features: Distance -> the features that it is on, in words, with path and SHA-256 of a network.
        generated: (shown, image_channels, height, width), a few of the generations.
        heldout, members: Like them, the nearest of the images that they are compared with, by pixels.
    """

    time: str
    estimates: Mapping[str, Estimate]
    num_generated: int
    num_reference: int
    num_reconstructed: int
    how: str
    features: Mapping[str, str]
    generated: Image
    heldout: Image
    members: Image

    @property
    def primary(self) -> str:
        """The distance that quality is told by: KID, of a feature network where one is given."""
        return primary_of(self.features)

    def series(self) -> dict[str, float]:
        """The curves: `quality/<distance>_<side>` with `_lower` and `_upper`."""
        return {name: value for key, each in self.estimates.items() for name, value in each.series(f"quality/{key}").items()}

    def numbers(self) -> dict[str, Any]:
        """For metrics.json: `<distance>_<side>` -> [value, lower, upper], and what they are of."""
        counts = {name: getattr(self, name) for name in ("num_generated", "num_reference", "num_reconstructed")}
        values = {key: [each.value, each.lower, each.upper] for key, each in self.estimates.items()}
        return {**values, **counts, "time": self.time, "primary": self.primary, "how": self.how, "features": self.features}

    def facts(self) -> dict[str, str]:
        """For the protocol of a report."""
        return {
            "generated images": f"{self.num_generated} {self.how}, against {self.num_reference} images of each side",
            **{f"features of {name}": words for name, words in self.features.items()},
        }

    def figures(self) -> "dict[str, Figure]":
        """`generations`: a few of them above what is nearest to each, held-out and member."""
        from matplotlib.figure import Figure

        rows = {"generated": self.generated, "nearest held-out": self.heldout, "nearest member": self.members}
        count, (height, width) = len(self.generated), self.generated.shape[-2:]
        figure = Figure(figsize=(8.0, 0.3 + 3 * 6.6 / count * height / width), layout="constrained")
        axis = figure.subplots()
        axis.imshow(image_grid(torch.cat([*rows.values()]), columns=count), interpolation="nearest")
        places = [place * (height + 1) + height / 2 for place in range(len(rows))]
        axis.set_xticks([])
        axis.set_yticks(places, list(rows))
        axis.tick_params(length=0)
        for spine in axis.spines.values():
            spine.set_visible(False)
        return {"generations": figure}


def primary_of(distances: Collection[str]) -> str:
    """Of those names of distances the one that quality is told by."""
    return "kid" if "kid" in distances else "kid_random"
