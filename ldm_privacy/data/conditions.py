"""What the denoiser is told of each sample: a mapping name -> tensor that goes to the network as keyword arguments."""

from collections.abc import Callable
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from ldm_privacy.errors import UserError
from ldm_privacy.plugins import blamed_on
from ldm_privacy.registry import CONDITIONS
from ldm_privacy.types import check_shape

Dropout = Annotated[float, Field(ge=0, lt=1)]


class ConditionSource:
    """Conditions by sample index. A subclass writes all four methods.

    Attributes:
        dropout: Share of the training's samples whose condition is replaced by the null condition.
    """

    dropout: float = 0.0

    def __call__(self, sample_index: Tensor) -> dict[str, Tensor]:
        """Name -> (samples, ...), on the CPU."""
        raise NotImplementedError

    def null(self) -> dict[str, Tensor]:
        """Name -> (1, ...): what stands for "no condition"."""
        raise NotImplementedError

    def network_arguments(self) -> dict[str, Any]:
        """What a denoiser must be built with to take it."""
        raise NotImplementedError

    def record(self) -> dict[str, Any]:
        """For a checkpoint: {"class": its name, ...}."""
        raise NotImplementedError


def check_condition(condition: ConditionSource, sample_index: Tensor) -> None:
    """Raise an error blamed on it unless it gives a row for each of those samples, a null row, and what else it must."""
    with blamed_on(condition):
        _ = {**condition.network_arguments()}, {**condition.record()}["class"]
        given, null = condition(sample_index), condition.null()
        for what, found, count in (("condition", given, len(sample_index)), ("null", null, 1)):
            for name, value in found.items():
                check_shape(f"{what} '{name}'", value, (count, *value.shape[1:]))
        if {*given} != {*null}:
            raise ValueError(f"null: it names {sorted(null)}, the condition {sorted(given)}")


@CONDITIONS.register("none")
class Unconditional(ConditionSource):
    """Nothing."""

    def __call__(self, sample_index: Tensor) -> dict[str, Tensor]:
        return {}

    def null(self) -> dict[str, Tensor]:
        return {}

    def network_arguments(self) -> dict[str, Any]:
        return {}

    def record(self) -> dict[str, Any]:
        return {"class": "none"}


@CONDITIONS.register("labels")
class ClassLabels(ConditionSource):
    """`class_labels`: the class of each sample; the null class is one further embedding, index num_classes.

    Args:
        labels: Sample indices -> classes, -1 where a sample has none; None where the data have no labels.
        num_classes: Of the data; UserError where they have no labels, or one class alone.
        dropout: In [0, 1).
    """

    def __init__(self, *, labels: Callable[[Tensor], Tensor | None], num_classes: int | None, dropout: Dropout = 0.1):
        if num_classes is None:
            raise UserError("denoiser.condition: 'labels' needs class labels; name their column with data.source.label_column.")
        if num_classes < 2:
            raise UserError(f"denoiser.condition: 'labels' needs two classes at least; the data have {num_classes}.")
        self.labels = labels
        self.num_classes = num_classes
        self.dropout = dropout

    def __call__(self, sample_index: Tensor) -> dict[str, Tensor]:
        label = self.labels(sample_index)
        assert label is not None
        return {"class_labels": torch.where(label < 0, self.num_classes, label)}

    def null(self) -> dict[str, Tensor]:
        return {"class_labels": torch.tensor([self.num_classes])}

    def network_arguments(self) -> dict[str, Any]:
        return {"num_class_embeds": self.num_classes + 1}

    def record(self) -> dict[str, Any]:
        return {"class": "labels", "num_classes": self.num_classes}
