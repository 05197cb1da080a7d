"""The section of a config that says which images there are, and who is a member."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from ldm_privacy import registry
from ldm_privacy.config.check import Component
from ldm_privacy.config.fields import component, option
from ldm_privacy.errors import UserError


@dataclass
class RepeatsConfig:
    """Members that are planted to be memorized: a positive control."""

    share: Annotated[float, Field(ge=0, lt=1)] = option("of the members, that the denoiser is shown more often; 0 = none", 0.0)
    times: Annotated[int, Field(ge=2, le=1000)] = option("that each of them comes in an epoch", 10)


IMAGES_AT_ONCE = 64
"""That are decoded together, twice in memory while the next ones are fetched: `data.bounded.AT_ONCE`."""


def check_image_memory(given: Mapping[str, Any]) -> None:
    """Raise UserError where `memory_gib` has no room for the images that are decoded at a time."""
    sizes: list[Any] = [given.get(key) for key in ("memory_gib", "channels", "resolution")]
    if not all(isinstance(size, int | float) for size in sizes):
        return
    gib, channels, resolution = sizes
    needed = 2 * IMAGES_AT_ONCE * channels * resolution**2 / 2**30
    if gib < needed:
        raise UserError(
            f"data.memory_gib: {gib:g} is too small for one batch: {2 * IMAGES_AT_ONCE} images of {channels} x {resolution} x "
            f"{resolution} lie in memory while they are decoded, {needed:.2g} GiB; give at least that."
        )


@dataclass
class DataConfig:
    """Images and who is a member."""

    source: Component = component("where the images come from", registry.IMAGE_SOURCES)
    resolution: Annotated[int, Field(gt=0, le=4096)] = option("height and width that images are brought to")
    channels: Literal[1, 3] = option("1 = grey, 3 = colour")
    num_members: PositiveInt | None = option(
        "training images; null = all of the index file, or of a source that comes with its sides", None
    )
    num_heldout: PositiveInt | None = option("images that are never trained on; null = as of members", None)
    num_public: NonNegativeInt | None = option(
        "further images, disjoint from both, for the autoencoder; null: all public_idxs of the index file", 0
    )
    index_file: str | None = option(".npz with mia_train_idxs and mia_eval_idxs: a published split; may have public_idxs", None)
    group_column: str | None = option("column whose groups (patients, identities, shared captions) stay on one side", None)
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = option("of the split; null = the seed of everything", None)
    split: Literal["counts", "coin"] = option(
        "who is a member: counts = so many, at random; coin = a fair coin for each of num_members + num_heldout images (or for "
        "each group): the audit then bounds epsilon",
        "counts",
    )
    flip: bool = option("mirror images in training (never in an audit)", True)
    repeats: RepeatsConfig = field(default_factory=RepeatsConfig, metadata={"help": "planted duplicates"})
    memory_gib: Annotated[float, Field(ge=0)] | None = option(
        "GiB for decoded images, and for latents in memory; images beyond it are decoded again each time they are needed, "
        "latents lie in a file; null = no limit",
        4.0,
    )

    @staticmethod
    def check_together(given: Mapping[str, Any]) -> None:
        """Raise UserError for keys that contradict each other, as far as they are given."""
        check_image_memory(given)
        if given.get("split") != "coin":
            return
        if file := given.get("index_file"):
            raise UserError(
                f"data.split=coin: data.index_file={file} names the members, so no coins are tossed; take one of the two out."
            )
        counts = [given.get(f"num_{side}") for side in ("members", "heldout")]
        if None not in counts and counts[0] != counts[1]:
            raise UserError(
                f"data.split=coin: data.num_members={counts[0]} and data.num_heldout={counts[1]}, but fair coins make both "
                "sides alike on average; give both the same number."
            )
