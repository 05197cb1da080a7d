"""What an attack is: hyperparameters, an orientation, and its terms per latent dimension."""

import inspect
from collections.abc import Sequence
from typing import ClassVar, Literal

from torch import Tensor

from ldm_privacy.attacks.query import DenoiserQuery
from ldm_privacy.errors import UserError
from ldm_privacy.registry import ATTACKS, nearest_name
from ldm_privacy.types import Contribution, Latent, MembershipScore, Statistic


class Attack:
    """A membership-inference attack whose statistic is a sum over latent dimensions, or a function of a few such sums.

    A subclass holds its hyperparameters and writes `contributions`; masking, summing, batching and noise are done once, in
    `attack_statistics`, so that one denoiser pass serves every mask and keep fraction 1 is the unmasked attack.

    Attributes:
        higher_means_member: Orientation of the raw statistic.
        num_draws: Noises per (sample, timestep); 0 where the attack draws none.
        noise_distribution: What the noise is drawn from.
        per_timestep: One number per timestep; otherwise one for all, from the attack's own timesteps.
        num_fitted: Numbers that `calibrated` fits, where it does.
        log_scale: The statistic is positive, and compared between audits and images as its logarithm: a sum of terms that
            are never negative. False where it is signed, or a difference or ratio already.
        maskable: False for attacks that are no sum over dimensions (`UnmaskableAttack`).
        views: The conditions that it queries under beside the own one: `query.under("null")`; none by default.
        view: The condition that stands in for the own one; see `on_condition`.
    """

    higher_means_member: bool = False
    num_draws: int = 0
    noise_distribution: ClassVar[Literal["normal", "rademacher"]] = "normal"
    per_timestep: ClassVar[bool] = True
    num_fitted: ClassVar[int] = 1
    log_scale: ClassVar[bool] = False
    maskable: ClassVar[bool] = True
    views: tuple[str, ...] = ()
    view: str = "own"

    def contributions(
        self, query: DenoiserQuery, latent: Latent, timesteps: list[int], noise: Tensor
    ) -> Contribution | tuple[Contribution, ...]:
        """The terms per latent dimension.

        Args:
            query: The denoiser: `query(states, timesteps)`, `query.under("null")(states, timesteps)` for another condition;
                `query.alphas_cumprod` is the schedule.
            latent: (batch, channels, height, width), clean.
            timesteps: What `grid` returned.
            noise: (timesteps, *latent.shape) for one draw, (num_draws, timesteps, *latent.shape) for more; empty for none.

        Returns:
            (timesteps, *latent.shape), with a first axis of 1 where not `per_timestep`; or several of these, whose masked
            sums `combine` turns into the statistic.
        """
        raise NotImplementedError

    def combine(self, *sums: Tensor) -> Statistic:
        """The statistic from the masked sums of the terms, each (masks, timesteps, batch)."""
        (total,) = sums
        return total

    def calibrated(self, sums: tuple[Tensor, ...], is_member: Tensor) -> "Attack":
        """The attack with those settings fitted that `combine` alone depends on; itself where there are none.

        Args:
            sums: What `combine` gets, of calibration samples and one mask: each (timesteps, samples).
            is_member: (samples,) bool.
        """
        return self

    def grid(self, timesteps: Sequence[int], num_train_timesteps: int) -> list[int]:
        """The timesteps that `contributions` works on: those asked for, checked.

        Raises:
            UserError: None are given, or one lies outside the schedule.
        """
        if not timesteps:
            raise UserError(f"{type(self).__name__}: no timesteps given; name at least one.")
        for timestep in timesteps:
            if not 0 <= timestep < num_train_timesteps:
                raise UserError(f"timestep {timestep} is outside the schedule: choose one from 0 to {num_train_timesteps - 1}.")
        return list(timesteps)

    def num_queries(self, timesteps: Sequence[int]) -> int:
        """Denoiser passes per sample."""
        return len(timesteps) * max(1, self.num_draws)

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in vars(self).items() if not name.startswith("_"))
        return f"{type(self).__name__}({settings})"


class UnmaskableAttack(Attack):
    """An attack that is no sum over latent dimensions (gradient norms, for example); it refuses masks."""

    maskable: ClassVar[bool] = False

    def statistic(self, query: DenoiserQuery, latent: Latent, timesteps: list[int], noise: Tensor) -> Tensor:
        """(timesteps, batch), with a first axis of 1 where not `per_timestep`. Arguments as in `Attack.contributions`.

        Gradients are off; an attack that needs them turns them on with `torch.enable_grad()`.
        """
        raise NotImplementedError


def get_attack(name: str, **hyperparameters: object) -> Attack:
    """The registered attack of that name.

    Raises:
        UserError: Unknown name or hyperparameter (the nearest is named), or a value that the attack refuses.
    """
    attack = ATTACKS.get(name)
    parameters = inspect.signature(attack).parameters
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    for key in hyperparameters:
        if key not in parameters and not open_ended:
            valid = f"Valid: {', '.join(parameters)}." if parameters else "It has none."
            raise UserError(f"attack '{name}': unknown hyperparameter '{key}'.{nearest_name(key, list(parameters))} {valid}")
    return attack(**hyperparameters)


def membership_scores(attack: Attack, statistics: Statistic) -> MembershipScore:
    """The statistics oriented so that higher = member, whatever their shape."""
    return statistics if attack.higher_means_member else -statistics


def check_num_draws(attack: str, num_draws: int) -> int:
    """`num_draws` where it is at least 1. Raises UserError otherwise."""
    if num_draws < 1:
        raise UserError(f"attack '{attack}': num_draws is {num_draws}; draw at least one noise.")
    return num_draws
