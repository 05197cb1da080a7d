"""What a target is told of images that are not the run's."""

from typing import NamedTuple

import torch

from ldm_privacy.data.captions import Captions
from ldm_privacy.data.conditions import ClassLabels
from ldm_privacy.data.loose import LooseImages
from ldm_privacy.recipes.setup import Setup
from ldm_privacy.recipes.suspect.levels import repeated
from ldm_privacy.targets.target import Target
from ldm_privacy.types import Condition


class SuspectCondition(NamedTuple):
    """What the target is told of the suspects.

    Attributes:
        target: Told so.
        condition: Of the suspects, a row each.
        is_null: Nothing is known of them, so that the run's images are to be asked without their condition too.
        note: The same in words; "" for a target without conditions.
    """

    target: Target
    condition: Condition
    is_null: bool = False
    note: str = ""


def told_of(setup: Setup, target: Target, loose: LooseImages) -> SuspectCondition:
    """The captions or classes of the folder, where the target wants such; the null condition of all images otherwise."""
    source, count = setup.condition, len(loose.pixels)
    if not source.null():
        return SuspectCondition(target, {})
    index = torch.arange(count)
    if isinstance(source, Captions) and any(captions := loose.captions or []):
        named = Captions(
            captions=lambda index: [list(captions[row]) for row in index.tolist()],
            member_index=index,
            heldout_index=index[:0],
            encoder=source.encoder,
            memory_mib=source.memory_mib,
            memory_key=source.memory_key,
        )
        return SuspectCondition(
            target.told_by(named), named(index), note=f"the captions of {sum(map(bool, captions))} of {count} images"
        )
    if isinstance(source, ClassLabels) and loose.classes is not None:
        number = {name: code for code, name in enumerate(source.class_names)}
        labels = torch.tensor([number.get(name, source.num_classes) for name in loose.classes])
        if known := int((labels < source.num_classes).sum()):
            return SuspectCondition(target, {"class_labels": labels}, note=f"the classes of {known} of {count} images")
    note = "nothing: the folder has no captions or classes that it knows, so every image is asked under the null condition"
    return SuspectCondition(target, repeated(source.null(), count), is_null=True, note=note)
