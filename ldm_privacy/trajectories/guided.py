"""What was found along the trajectories of one guidance scale, a caption a row."""

from dataclasses import dataclass

from torch import Tensor

from ldm_privacy.trajectories.captions import CAPTION_GROUPS, FollowedCaptions
from ldm_privacy.trajectories.deviation import deviation
from ldm_privacy.trajectories.follow import Followed


@dataclass(frozen=True, eq=False)
class Guided:
    """Trajectories of one guidance scale; rows are captions, numbers float64 on the CPU and means over a caption's seeds.

    Attributes:
        clean, noise: (captions, steps), w0 and wT of each state.
        mean: (captions, steps), w1; None without that column.
        r_squared: (captions, steps), of the decomposition.
        cosine, condition_number: (captions, seeds), of x and x_T.
        d1, d2: (captions,), see `deviation`.
        d1_early, d2_early: Of the first fifth of the states.
        d1_wrong, d2_wrong: With the latent of another member, drawn at random, in place of the own one.
        gain: (captions,), k of `overestimation`, mean over the first `num_early` steps.
        error: (captions,), of the clean prediction there.
        gap: (captions,), `branch_gap` at the first step.
        gap_mean: Over all steps.
        similarity: (captions,), centred cosine of the generated latent with the own one.
        nearest: (captions, seeds) int64, sample index of the nearest audited member.
        nearest_similarity: (captions, seeds).
        own_is_nearest: (captions, seeds) bool: it is told the same, as the caption's own image is.
        other_is_nearest: (captions, seeds) bool: it is a planted duplicate of another caption.
    """

    clean: Tensor
    noise: Tensor
    mean: Tensor | None
    r_squared: Tensor
    cosine: Tensor
    condition_number: Tensor
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
    other_is_nearest: Tensor

    @classmethod
    def of(
        cls,
        followed: Followed,
        num_seeds: int,
        captions: FollowedCaptions,
        *,
        similarity: Tensor,
        nearest: Tensor,
        nearest_similarity: Tensor,
    ) -> "Guided":
        """From trajectories of which each caption has `num_seeds` in a row, and what they replicate.

        Args:
            followed: (captions * seeds) rows.
            num_seeds: Of each caption.
            captions: Whose they are.
            similarity: (captions * seeds,), to the own image's latent; see `similarity`.
            nearest, nearest_similarity: (captions * seeds,); see `nearest_of`.
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
        is_own = captions.condition_of(nearest) == captions.condition_of(captions.sample_index)[:, None]
        is_duplicate = captions.group_of(nearest) == CAPTION_GROUPS.index("repeated")
        return cls(
            clean=of_states(own_latent.clean),
            noise=of_states(own_latent.noise),
            mean=None if own_latent.mean is None else of_states(own_latent.mean),
            r_squared=of_states(own_latent.r_squared),
            cosine=own_latent.cosine.unflatten(0, (-1, num_seeds)),
            condition_number=own_latent.condition_number.unflatten(0, (-1, num_seeds)),
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
            own_is_nearest=is_own,
            other_is_nearest=is_duplicate & ~is_own,
        )

    @property
    def replicated(self) -> Tensor:
        """(captions,), share of a caption's seeds whose nearest member has that caption; 0 where no member has."""
        return self.own_is_nearest.double().mean(1)

    @property
    def took_duplicate(self) -> Tensor:
        """(captions,), share of a caption's seeds whose nearest member is a planted duplicate of another caption."""
        return self.other_is_nearest.double().mean(1)

    @property
    def nearest_mean(self) -> Tensor:
        """(captions,), similarity to the nearest member, whoever it is."""
        return self.nearest_similarity.mean(1)
