"""Memorization onset: from which epoch on the denoiser tells members from held-out samples."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ldm_privacy.errors import UserError
from ldm_privacy.metrics import auroc_difference


@dataclass(frozen=True)
class Rise:
    """One look: the AUROC's rise over the untrained denoiser's audit, with the one-sided bound that decides."""

    epoch: int
    look: int
    """1, 2, ...: which audit after the untrained denoiser's this is."""
    confidence: float
    """Of `lower`; it grows with the look, which is how repeated looks are paid for."""
    value: float
    lower: float
    onset_epoch: int | None
    """As known after this look."""


class OnsetDetector:
    """Finds the first audited epoch from which the AUROC's rise stays above 0 for `num_consecutive` audits in a row.

    The rise is paired with the audit of the untrained denoiser on the same samples, so what the autoencoder alone
    leaks does not count. The onset is the first of the consecutive audits, known only at the last. Once found it
    stays.

    Repeated looks: look k tests at the level `alpha * 6 / (pi^2 k^2)`, alpha = 1 - confidence. The levels sum to
    alpha over infinitely many looks, so by the union bound the chance of a false onset is below alpha whatever the
    number of audits and their dependence (as far as the normal approximation of DeLong's interval holds).

    Args:
        num_consecutive: Audits in a row whose lower bound must be above 0.
        confidence: 1 - alpha for all looks together.

    Raises:
        UserError: `num_consecutive` below 1, or `confidence` not strictly between 0 and 1.
    """

    def __init__(self, num_consecutive: int = 2, confidence: float = 0.95):
        if num_consecutive < 1:
            raise UserError(f"num_consecutive is {num_consecutive}: choose 1 or more.")
        if not 0.0 < confidence < 1.0:
            raise UserError(f"confidence is {confidence}: choose a number strictly between 0 and 1.")
        self.num_consecutive = num_consecutive
        self.confidence = confidence
        self._lower_by_epoch: dict[int, float] = {}

    @property
    def num_looks(self) -> int:
        """Looks taken so far."""
        return len(self._lower_by_epoch)

    @property
    def onset_epoch(self) -> int | None:
        """The onset, or None as long as none is known."""
        run: list[int] = []
        for epoch, lower in self._lower_by_epoch.items():
            run = [*run, epoch] if lower > 0 else []
            if len(run) == self.num_consecutive:
                return run[0]
        return None

    def confidence_at(self, look: int) -> float:
        """One-sided confidence of the lower bound at look 1, 2, ...: `1 - alpha * 6 / (pi^2 look^2)`."""
        return 1.0 - (1.0 - self.confidence) * 6.0 / (math.pi * look) ** 2

    def update(self, epoch: int, rise_lower: float) -> int | None:
        """Takes the lower bound of one audit, computed at `confidence_at(num_looks + 1)`; returns the onset, if known.

        An epoch that was seen already (an audit repeated after a resume) changes nothing.

        Raises:
            ValueError: an unseen epoch that lies before one already seen, or a bound that is not a number.
        """
        if math.isnan(rise_lower):
            raise ValueError(f"the lower bound at epoch {epoch} is not a number")
        if epoch not in self._lower_by_epoch:
            last = max(self._lower_by_epoch, default=epoch)
            if epoch < last:
                raise ValueError(f"audit of epoch {epoch} came after that of epoch {last}")
            self._lower_by_epoch[epoch] = float(rise_lower)
        return self.onset_epoch

    def update_scores(
        self, epoch: int, score: Tensor, baseline_score: Tensor, is_member: Tensor, *, group: Tensor | None = None
    ) -> Rise:
        """One look: the paired one-sided lower bound of the AUROC's rise at this look's level, taken into account.

        Args:
            epoch: The audited epoch.
            score: (samples,) membership scores of this audit, higher = member.
            baseline_score: (samples,) those of the untrained denoiser, same samples in the same order.
            is_member: (samples,) bool.
            group: (samples,) labels of groups; no group on both sides.

        Returns:
            The rise. For an epoch seen already: at the level of its own look, and nothing is changed.

        Raises:
            UserError: see `ldm_privacy.metrics.auroc_difference`.
            ValueError: see `update`.
        """
        epochs = list(self._lower_by_epoch)
        look = epochs.index(epoch) + 1 if epoch in self._lower_by_epoch else self.num_looks + 1
        confidence = self.confidence_at(look)
        rise = auroc_difference(score, baseline_score, is_member, confidence=confidence, alternative="greater", group=group)
        onset_epoch = self.update(epoch, rise.lower)
        return Rise(epoch, look, confidence, rise.value, rise.lower, onset_epoch)

    def state_dict(self) -> dict[str, Any]:
        """The looks so far, in plain lists of numbers; the onset follows from them."""
        return {"epoch": list(self._lower_by_epoch), "rise_lower": list(self._lower_by_epoch.values())}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replaces the looks by stored ones."""
        self._lower_by_epoch = {int(epoch): float(lower) for epoch, lower in zip(state["epoch"], state["rise_lower"])}
