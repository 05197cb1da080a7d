"""What a look at trajectories found, as plain numbers: tables, figures and files are made of it without the model."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ldm_privacy.trajectories.deviation import Deviation, deviation, memoriser_coefficients
from ldm_privacy.trajectories.follow import Followed
from ldm_privacy.types import Image


@dataclass(frozen=True, eq=False)
class Guided:
    """Trajectories of one guidance scale; rows are captions, numbers float64 on the CPU and means over a caption's seeds.

    Attributes:
        clean, noise: (captions, steps), w0 and wT of each state.
        mean: (captions, steps), w1; None without that column.
        r_squared: (captions, steps), of the decomposition.
        d1, d2: (captions,), see `deviation`.
        d1_early, d2_early: Of the first fifth of the states.
        d1_wrong, d2_wrong: With the latent of another member, drawn at random, in place of the own one.
        gain: (captions,), k of `overestimation`, mean over the first `num_early` steps.
        error: (captions,), of the clean prediction there.
        gap: (captions,), `branch_gap` at the first step.
        gap_mean: Over all steps.
        similarity: (captions,), centred cosine of the generated latent with the own one.
        nearest: (captions, seeds) int64, sample index of the nearest member.
        nearest_similarity: (captions, seeds).
        own_is_nearest: (captions, seeds) bool.
    """

    clean: Tensor
    noise: Tensor
    mean: Tensor | None
    r_squared: Tensor
    d1: Tensor
    d2: Tensor
    d1_early: Tensor
    d2_early: Tensor
    d1_wrong: Tensor
    d2_wrong: Tensor
    gain: Tensor
    error: Tensor
    gap: Tensor
    gap_mean: Tensor
    similarity: Tensor
    nearest: Tensor
    nearest_similarity: Tensor
    own_is_nearest: Tensor

    @classmethod
    def of(
        cls, followed: Followed, num_seeds: int, similarity: Tensor, nearest: Tensor, nearest_similarity: Tensor, own: Tensor
    ) -> "Guided":
        """From trajectories of which each caption has `num_seeds` in a row, and what they replicate.

        Args:
            followed: (captions * seeds) rows.
            num_seeds: Of each caption.
            similarity, nearest, nearest_similarity: (captions * seeds,); see `Replication`.
            own: (captions,) int64, sample indices of the captions.
        """

        def over_seeds(value: Tensor) -> Tensor:
            return value.unflatten(-1, (-1, num_seeds)).mean(-1)

        def of_states(value: Tensor) -> Tensor:
            return over_seeds(value).T

        abar, own_latent, wrong = followed.abar[1:], followed.coefficients, followed.wrong
        early = max(1, len(abar) // 5)
        whole, first = deviation(own_latent, abar), deviation(own_latent, abar, num_steps=early)
        other = deviation(wrong, abar)
        nearest = nearest.unflatten(0, (-1, num_seeds))
        return cls(
            clean=of_states(own_latent.clean),
            noise=of_states(own_latent.noise),
            mean=None if own_latent.mean is None else of_states(own_latent.mean),
            r_squared=of_states(own_latent.r_squared),
            d1=over_seeds(whole.d1),
            d2=over_seeds(whole.d2),
            d1_early=over_seeds(first.d1),
            d2_early=over_seeds(first.d2),
            d1_wrong=over_seeds(other.d1),
            d2_wrong=over_seeds(other.d2),
            gain=over_seeds(followed.gain),
            error=over_seeds(followed.error),
            gap=over_seeds(followed.gap),
            gap_mean=over_seeds(followed.gap_mean),
            similarity=over_seeds(similarity),
            nearest=nearest,
            nearest_similarity=nearest_similarity.unflatten(0, (-1, num_seeds)),
            own_is_nearest=nearest == own[:, None],
        )

    @property
    def replicated(self) -> Tensor:
        """(captions,), share of a caption's seeds whose nearest member is its own image; 0 of held-out captions."""
        return self.own_is_nearest.double().mean(1)


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
        group: One of `captions.GROUPS` each.
        words: The captions in words; None where the condition has none.
        unit: (captions,) int64: patients, identities, which intervals resample whole; None where there are none.
        abar: (steps + 1,), of the start and of every state.
        num_early: Steps that `gain` and `error` are means over.
        x_is: "paired": x is the latent of the caption's own image; "generated": the final latent of the trajectory.
        cosine, condition_number: (captions,), of x and x_T; means over seeds.
        guided: Guidance scale -> what was found, ascending.
        most, least: The captions of members that are memorized most and least at the largest scale, by similarity.
    """

    time: str
    sample_index: Tensor
    group: tuple[str, ...]
    words: tuple[str, ...] | None
    unit: Tensor | None
    abar: Tensor
    num_early: int
    x_is: str
    cosine: Tensor
    condition_number: Tensor
    guided: Mapping[float, Guided]
    most: tuple[Shown, ...] = ()
    least: tuple[Shown, ...] = ()

    @property
    def top(self) -> float:
        """The largest guidance scale: what replication is told at."""
        return max(self.guided)

    def of_group(self, *groups: str) -> Tensor:
        """(captions,) bool: those of these groups."""
        return torch.tensor([each in groups for each in self.group])

    def ideal(self, guidance_scale: float = 1.0, *, against_normal: bool = False) -> Deviation:
        """D1 and D2 of the ideal memoriser on the same schedule, one row; see `memoriser_coefficients`."""
        coefficients = memoriser_coefficients(self.abar, guidance_scale, against_normal=against_normal)
        return deviation(coefficients, self.abar[1:])
