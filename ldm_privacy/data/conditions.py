"""What the denoiser is told of each sample: a mapping name -> tensor that goes to the network as keyword arguments."""

from collections.abc import Callable, Collection, Sequence
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from ldm_privacy.errors import UserError
from ldm_privacy.plugins import blamed_on
from ldm_privacy.randomness import uniform
from ldm_privacy.registry import CONDITIONS
from ldm_privacy.types import Condition, check_shape

Dropout = Annotated[float, Field(ge=0, lt=1)]


class ConditionSource:
    """Conditions by sample index. A subclass writes `__call__`, `null`, `network_arguments` and `record`.

    What travels with the samples is small (a class, the number of a caption); `given` turns a batch of it into what the network
    gets.

    Attributes:
        dropout: Share of the training's samples whose condition is replaced by the null condition.
        noise: How much of what is told is made wrong in training, of which `given_in_training` knows what that means.
        note: What a reader of a report needs to know of it, in words.
        members_part: What of it was made from the members' own data and so isn't covered by the privacy of the denoiser's
            weights, as "what ... has of the members"; "" for nothing.
    """

    dropout: float = 0.0
    noise: float = 0.0
    note: str = ""
    members_part: str = ""

    def __deepcopy__(self, memo: dict[int, Any]) -> "ConditionSource":
        return self  # it changes nowhere, and averaged weights are in a copy of all that a training holds

    def __call__(self, sample_index: Tensor) -> dict[str, Tensor]:
        """Name -> (samples, ...), on the CPU: what audits and generated images are told."""
        raise NotImplementedError

    def null(self) -> dict[str, Tensor]:
        """Name -> (1, ...): what stands for "no condition"."""
        raise NotImplementedError

    def choices(self, sample_index: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """What a training step draws from: name -> (samples, choices, ...), and (samples,) how many of them each sample has."""
        told = {name: value[:, None] for name, value in self(sample_index).items()}
        return told, torch.ones(len(sample_index), dtype=torch.int64)

    def reduced(self, sample_index: Tensor) -> dict[str, dict[str, Tensor]]:
        """View -> condition with a part of it removed ("without_1", ...); none where it has no parts."""
        return {}

    def given(self, condition: Condition) -> Condition:
        """Keyword arguments of the network for a batch of such conditions, on their device: themselves by default."""
        return condition

    def given_in_training(self, condition: Condition, count: int, share: Callable[[Tensor], Tensor]) -> Condition:
        """As `given`, with the noise of a training step: where there is none, nothing is drawn.

        Args:
            condition: Of this process's samples of the step.
            count: Samples of the whole step. Random numbers come from the global random state, for all of them.
            share: This process's rows of such numbers.
        """
        return self.given(condition)

    def words(self, sample_index: Tensor) -> list[str] | None:
        """What each sample is told, in words; None where there are none."""
        return None

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
        told, null = condition(sample_index), condition.null()
        choices, counts = condition.choices(sample_index)
        check_shape("choices", counts, sample_index.shape, torch.int64)
        given, count = condition.given(told), len(sample_index)
        with torch.random.fork_rng(devices=[]):
            in_training = condition.given_in_training(told, count, lambda whole: whole)
        for what, found, rows in (
            ("condition", told, count),
            ("null", null, 1),
            ("choices", choices, count),
            ("given", given, count),
            ("given in training", in_training, count),
        ):
            for name, value in found.items():
                check_shape(f"{what} '{name}'", value, (rows, *value.shape[1:]))
        if {*told} != {*null}:
            raise ValueError(f"null: it names {sorted(null)}, the condition {sorted(told)}")


def shuffled(sample_index: Tensor, condition: Condition, *, seed: int = 0) -> Tensor:
    """Whose condition each sample gets instead of its own: places, (samples,) int64, a derangement.

    A cycle through the samples in the order of a hash of their index, mended so that nobody gets a condition that is equal to
    the own one, as long as no condition is that of more than half of them.

    Args:
        sample_index: (samples,), at least two.
        condition: Of those samples.
        seed: Of the hash.
    """
    count = len(sample_index)
    told = torch.cat([value.reshape(count, -1).double() for value in condition.values()], 1)
    number = told.unique(dim=0, return_inverse=True)[1].tolist()
    order = uniform("shuffled", (seed, sample_index), ()).argsort().tolist()
    source = dict(zip(order, [*order[1:], order[0]]))
    for mine in order:
        if number[source[mine]] == number[mine]:
            for other in order:
                fits = number[source[other]] != number[mine] and number[source[mine]] != number[other]
                if fits and source[other] != mine and source[mine] != other:
                    source[mine], source[other] = source[other], source[mine]
                    break
    return torch.tensor([source[place] for place in range(count)])


def views_of(
    names: Collection[str], sample_index: Tensor, condition: Condition, null: Condition, *, seed: int = 0
) -> dict[str, Condition]:
    """The null condition for each sample, and, where "shuffled" is named, another sample's; see `shuffled`."""
    count = len(sample_index)
    views: dict[str, Condition] = {"null": {name: value.expand(count, *value.shape[1:]) for name, value in null.items()}}
    if "shuffled" in names:
        places = shuffled(sample_index, condition, seed=seed)
        views["shuffled"] = {name: value[places] for name, value in condition.items()}
    return views


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
        class_names: Of the data, where they have any.
        dropout: In [0, 1).
        noise: Share of the training's samples, in [0, 1), that are told a class drawn from all alike in their own's place. To
            labels it is what random captions are to text, a training-time mitigation of Somepalli et al. (2023, 2305.20086).
    """

    def __init__(
        self,
        *,
        labels: Callable[[Tensor], Tensor | None],
        num_classes: int | None,
        class_names: Sequence[str] | None = None,
        dropout: Dropout = 0.1,
        noise: Dropout = 0.0,
    ):
        if num_classes is None:
            raise UserError("denoiser.condition: 'labels' needs class labels; name their column with data.source.label_column.")
        if num_classes < 2:
            raise UserError(f"denoiser.condition: 'labels' needs two classes at least; the data have {num_classes}.")
        self.labels = labels
        self.num_classes = num_classes
        self.class_names = class_names or [f"class {number}" for number in range(num_classes)]
        self.dropout, self.noise = dropout, noise
        self.note = f"in training a share of {noise:g} was told a random class" if noise else ""

    def given_in_training(self, condition: Condition, count: int, share: Callable[[Tensor], Tensor]) -> Condition:
        if not self.noise:
            return self.given(condition)
        own = condition["class_labels"]
        is_exchanged = share(torch.rand(count, device=own.device) < self.noise) & (own < self.num_classes)
        other = share(torch.randint(self.num_classes, (count,), device=own.device))
        return self.given({"class_labels": torch.where(is_exchanged, other, own)})

    def __call__(self, sample_index: Tensor) -> dict[str, Tensor]:
        label = self.labels(sample_index)
        assert label is not None
        return {"class_labels": torch.where(label < 0, self.num_classes, label)}

    def null(self) -> dict[str, Tensor]:
        return {"class_labels": torch.tensor([self.num_classes])}

    def words(self, sample_index: Tensor) -> list[str]:
        return [[*self.class_names, ""][number] for number in self(sample_index)["class_labels"].tolist()]

    def network_arguments(self) -> dict[str, Any]:
        return {"num_class_embeds": self.num_classes + 1}

    def record(self) -> dict[str, Any]:
        return {"class": "labels", "num_classes": self.num_classes}
