"""What differential privacy guarantees of a checkpoint's denoiser."""

from dataclasses import dataclass, replace
from typing import Any

from ldm_privacy.errors import UserError
from ldm_privacy.metrics.rounding import at_most

NEVER_COVERED = (
    "groups of images",
    "what else the run writes, and what was chosen by it",
    "anything at all for who knows the seed",
)
"""By the guarantee of any training, in words; docs/reference/defences.md says more of each."""


@dataclass(frozen=True)
class Privacy:
    """(epsilon, delta)-differential privacy of the weights after some steps of DP-SGD, for one image added or removed.

    Attributes:
        noise_multiplier: Standard deviation of the noise, in units of `max_gradient_norm`.
        max_gradient_norm: That each image's gradient is clipped to.
        sample_rate: Probability of a member to be in a step.
        delta: In (0, 1).
        given: What else of this training the members have a part in, each in words.
        num_steps: That were made.
        epsilon: After them.
    """

    noise_multiplier: float
    max_gradient_norm: float
    sample_rate: float
    delta: float
    given: tuple[str, ...] = ()
    num_steps: int = 0
    epsilon: float = 0.0

    def after(self, num_steps: int, epsilon: float) -> "Privacy":
        """The same after so many steps."""
        return replace(self, num_steps=num_steps, epsilon=epsilon)

    @property
    def recipe(self) -> str:
        """How steps are made, in words."""
        return (
            f"each member in a step with probability {self.sample_rate:.3g}, its gradient clipped to "
            f"{self.max_gradient_norm:g}, noise multiplier {self.noise_multiplier:g}"
        )

    @property
    def covered(self) -> str:
        """What the guarantee is of, and all that it is not of, in words."""
        return f"the denoiser's weights alone (not covered: {'; '.join((*self.given, *NEVER_COVERED))})"

    def __str__(self) -> str:
        return (
            f"epsilon at most {at_most(self.epsilon)} at delta {at_most(self.delta, 2)} (DP-SGD, {self.num_steps:,} steps, RDP "
            f"accountant), for one image, of {self.covered}"
        )

    def record(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        return dict(vars(self))

    @staticmethod
    def from_record(record: object) -> "Privacy":
        """The inverse of `record`. Raises UserError where it is something else."""
        names = Privacy.__annotations__
        if not isinstance(record, dict) or record.keys() != names.keys():
            raise UserError("what it says of its privacy is missing or something else")
        if not all(type(record[name]) is {"given": tuple, "num_steps": int}.get(name, float) for name in names):
            raise UserError("what it says of its privacy is something else")
        if not all(type(each) is str for each in record["given"]):
            raise UserError("what it says of its privacy is something else")
        return Privacy(**record)
