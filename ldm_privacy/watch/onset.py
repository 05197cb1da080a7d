"""The detector of an onset: from which look on a rise stays above 0, with repeated looks paid for."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ldm_privacy.errors import UserError
from ldm_privacy.types import Estimate


@dataclass(frozen=True)
class Rise:
    """One look: how far a quantity has risen, with the one-sided lower bound that decides."""

    epoch: int
    look: int
    """1, 2, ...: which look this is."""
    confidence: float
    """Of `lower`; it grows with the look, which is how repeated looks are paid for."""
    value: float
    lower: float
    onset_epoch: int | None
    """As known after this look."""

    def series(self, prefix: str) -> dict[str, float]:
        """The rise, its bound and, once it is known, the onset as curves: `<prefix>rise`, `rise_lower`, `onset_epoch`."""
        known = {} if self.onset_epoch is None else {f"{prefix}onset_epoch": float(self.onset_epoch)}
        return {f"{prefix}rise": self.value, f"{prefix}rise_lower": self.lower, **known}


class OnsetDetector:
    """Finds the first look from which a quantity's rise stays above 0 for `num_consecutive` looks in a row.

    The quantity can be anything whose rise has a one-sided lower bound at a given confidence. Three are in use, each with
    a detector of its own:

    * attack: the AUROC minus that of the untrained denoiser's audit, paired on the same samples
      (`ldm_privacy.metrics.auroc_difference`), so that what the autoencoder alone leaks does not count;
    * loss gap: the opening of the held-out - member denoising loss since the untrained denoiser, paired
      (`ldm_privacy.metrics.loss_gap_rise`);
    * memorized generations: copies of members against copies of held-out images
      (`ldm_privacy.metrics.memorized_generations.GenerationCopies.rise`).

    The onset is the first of the consecutive looks, known only at the last. Once found it stays.

    Repeated looks: look k tests at the level `alpha * 6 / (pi^2 k^2)`, alpha = 1 - confidence. The levels sum to
    alpha over infinitely many looks, so by the union bound the chance of a false onset is below alpha whatever the
    number of looks and their dependence, as far as each bound holds its level (DeLong's normal approximation, Welch's t,
    and for memorized generations the independence of distinct copied images).

    Measured false alarms, share of 1,000 simulated trainings of 20 looks each whose denoiser knows nothing of membership
    (`python -m benchmarks.onset`; alpha = 0.05; standard error at 0.05: 0.007):

    ======================================  ================  =================  ==================
    quantity                                samples per side  num_consecutive 1  num_consecutive 2
    ======================================  ================  =================  ==================
    attack AUROC                            100, 417          0.039, 0.024       0.006, 0.006
    loss gap                                100, 417          0.029, 0.031       0.004, 0.006
    memorized generations                   100, 417          0.008, 0.014       0.000, 0.000
    (generations as trials in place of      100, 417          0.276, 0.211       0.012, 0.002
    distinct copied images: not in use)
    ======================================  ================  =================  ==================

    Args:
        num_consecutive: Looks in a row whose lower bound must be above 0.
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
        self.rise: Rise | None = None
        """At the newest look."""
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
        """Takes the lower bound of one look, computed at `confidence_at(num_looks + 1)`; returns the onset, if known.

        An epoch that was seen already (a look repeated after a resume) changes nothing.

        Raises:
            ValueError: an unseen epoch that lies before one already seen, or a bound that is not a number.
        """
        if math.isnan(rise_lower):
            raise ValueError(f"the lower bound at epoch {epoch} is not a number")
        if epoch not in self._lower_by_epoch:
            last = max(self._lower_by_epoch, default=epoch)
            if epoch < last:
                raise ValueError(f"the look at epoch {epoch} came after that of epoch {last}")
            self._lower_by_epoch[epoch] = float(rise_lower)
        return self.onset_epoch

    def look(self, epoch: int, rise_at: Callable[[float], Estimate]) -> Rise:
        """One look: the quantity's rise with its one-sided lower bound at this look's level, taken into account.

        Args:
            epoch: The audited epoch.
            rise_at: Confidence -> the rise with a one-sided lower bound at that confidence.

        Returns:
            The rise. For an epoch seen already: at the level of its own look, and nothing is changed.

        Raises:
            UserError: whatever `rise_at` raises.
            ValueError: see `update`.
        """
        epochs = list(self._lower_by_epoch)
        look = epochs.index(epoch) + 1 if epoch in self._lower_by_epoch else self.num_looks + 1
        confidence = self.confidence_at(look)
        rise = rise_at(confidence)
        onset_epoch = self.update(epoch, rise.lower)
        self.rise = Rise(epoch, look, confidence, rise.value, rise.lower, onset_epoch)
        return self.rise

    def state_dict(self) -> dict[str, Any]:
        """The looks so far, in plain numbers; the onset follows from them."""
        looks = {"epoch": list(self._lower_by_epoch), "rise_lower": list(self._lower_by_epoch.values())}
        return {**looks, "rise": None if self.rise is None else asdict(self.rise)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replaces the looks by stored ones."""
        self._lower_by_epoch = {int(epoch): float(lower) for epoch, lower in zip(state["epoch"], state["rise_lower"])}
        self.rise = None if state["rise"] is None else Rise(**state["rise"])


class Baseline:
    """What the first look found of each sample; later looks may be at other samples than it was.

    Args:
        sample_index, value: (samples,), ascending.
    """

    def __init__(self, sample_index: Tensor, value: Tensor):
        self.sample_index = sample_index
        self.value = value

    def paired(self, sample_index: Tensor) -> tuple[Tensor, Tensor]:
        """Which of those samples it has, (samples,) bool, and its values of them."""
        return torch.isin(sample_index, self.sample_index), self.value[torch.isin(self.sample_index, sample_index)]

    def state(self) -> list[Tensor]:
        """For a checkpoint: `Baseline(*state)` is the inverse."""
        return [self.sample_index, self.value]
