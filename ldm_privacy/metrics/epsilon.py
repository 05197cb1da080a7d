"""A lower bound on epsilon by one training run whose members were drawn by fair coins, a coin for each sample or group.

Steinke, Nasr & Jagielski, "Privacy auditing with one (1) training run", NeurIPS 2023, 2305.08846. Whoever sees what an
epsilon-DP training gives out guesses a coin right with a chance of at most q = e^epsilon / (1 + e^epsilon), whatever is known
of all other coins. So of r guesses (abstaining costs nothing) the number that is right is at most binomial, Bin(r, q), and so
many right ones refute every epsilon that makes them improbable. Neighbours are data sets with and without one sample (group).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import special, stats

from ldm_privacy.errors import UserError
from ldm_privacy.metrics.checks import check_scores, check_share
from ldm_privacy.metrics.half import Half


@dataclass(frozen=True)
class Guesses:
    """Guesses of one half's coins: member where score >= upper, held-out where score <= lower, none in between.

    Attributes:
        num_correct, num_guesses: Of the coins of the half that reports.
        num_coins: It has in all: samples, or groups.
        lower, upper: From the other half; infinite where nobody is guessed to be on that side.
    """

    num_correct: int
    num_guesses: int
    num_coins: int
    lower: float
    upper: float


@dataclass(frozen=True)
class EpsilonBound:
    """Epsilon is at least `value`, with a chance of `confidence` over coins and training.

    Attributes:
        value: The larger of the halves' bounds, each at confidence 1 - (1 - confidence) / (number of halves).
        halves: One or two.
        confidence, delta: Of the claim.
    """

    value: float
    halves: tuple[Guesses, ...]
    confidence: float
    delta: float = 0.0

    @classmethod
    def of(cls, halves: Sequence[Guesses], *, confidence: float, delta: float = 0.0) -> "EpsilonBound":
        """The bound of those guesses."""
        return cls(max(_bounds(halves, confidence, delta)), tuple(halves), confidence, delta)

    def at(self, delta: float) -> "EpsilonBound":
        """The same guesses' bound on the epsilon that goes with that delta."""
        return self.of(self.halves, confidence=self.confidence, delta=delta)

    @property
    def best(self) -> Guesses:
        """The half that gives the bound."""
        return self.halves[int(np.argmax(_bounds(self.halves, self.confidence, self.delta)))]

    @property
    def most(self) -> float:
        """What that half could have shown at most: with every coin guessed, and right."""
        count = self.best.num_coins
        each = 1.0 - (1.0 - self.confidence) / len(self.halves)
        return epsilon_lower_bound(count, count, confidence=each, delta=self.delta)


def epsilon_lower_bound(
    num_correct: int, num_guesses: int, *, confidence: float = 0.95, delta: float = 0.0, num_coins: int | None = None
) -> float:
    """The largest epsilon >= 0 that so many right guesses refute; 0 where they refute none, as 0 guesses do.

    With delta = 0, epsilon is refuted at level alpha = 1 - confidence if P[Bin(num_guesses, q) >= num_correct] <= alpha: the
    bound is the logit of the one-sided Clopper-Pearson bound. All r right: -ln(alpha^(-1 / r) - 1), 3.7, 5.1 and 6.7 of 125,
    500 and 2,500. With delta > 0 that chance grows by 2 num_coins delta max_i P[num_correct > Bin >= num_correct - i] / i.

    The thresholds of the guesses must not have been chosen with the guessed coins (`crossfit_epsilon`), the coins must be fair
    and independent of each other and of all else.

    Args:
        num_correct, num_guesses: Of coins that were guessed.
        confidence: One-sided.
        delta: Of (epsilon, delta)-DP. The bound is 0 where 2 num_coins delta >= 1.
        num_coins: That might have been guessed; `num_guesses` by default. Matters with delta > 0 alone.

    Raises:
        UserError: More right than guessed, or guessed than coins; a count that is negative or no whole number; confidence not
            in (0, 1), delta not in [0, 1).
    """
    check_share("confidence", confidence)
    num_coins = num_guesses if num_coins is None else num_coins
    counts = num_correct, num_guesses, num_coins
    if not (0 <= num_correct <= num_guesses <= num_coins and all(float(count).is_integer() for count in counts)):
        raise UserError(
            f"{num_correct} of {num_guesses} guesses right, of {num_coins} coins: right guesses are at most all of them, "
            "guesses at most one a coin, and all are whole numbers."
        )
    if not 0.0 <= delta < 1.0:
        raise UserError(f"delta is {delta}: choose 0, or a number below 1.")
    alpha, excess = 1.0 - confidence, 2.0 * num_coins * delta
    bound = float(_epsilon(_share_bound(np.array(num_correct), np.array(num_guesses), alpha)))
    if bound == 0.0 or not delta:
        return bound
    if excess >= 1.0:
        return 0.0
    # The chance rises with epsilon: it is the largest of (1 - c) P[Bin >= v] + c P[Bin >= v - i] with c = excess / i < 1.
    fewer = np.arange(1, num_correct + 1)
    refuted, kept = 0.0, bound
    for _ in range(60):
        q = special.expit(middle := (refuted + kept) / 2)
        tail = stats.binom.sf(num_correct - 1, num_guesses, q)
        chance = tail + excess * np.max((stats.binom.sf(num_correct - 1 - fewer, num_guesses, q) - tail) / fewer)
        refuted, kept = (middle, kept) if chance <= alpha else (refuted, middle)
    return refuted


def guess_thresholds(score: np.ndarray, is_member: np.ndarray, *, confidence: float = 0.95) -> tuple[float, float]:
    """(lower, upper) between which to abstain: those whose guesses give these samples' own coins the largest bound.

    Candidates are the scores of the k surest members and of the k surest held-out samples, k = 0, 1, 2, 3, 4, 6, 8, 11, ...
    (powers of the root of two) and all.

    Args:
        score: (samples,), higher = member.
        is_member: (samples,) bool.
        confidence: At which the bound will be reported.

    Raises:
        UserError: No samples, or not as many scores.
    """
    count = len(score)
    if not count or count != len(is_member):
        raise UserError(f"{count} scores of {len(is_member)} samples: pass one score per sample, of one sample at least.")
    ranks = np.unique([*np.round(2 ** np.arange(0, np.log2(count), 0.5)).astype(int), count]) - 1

    def tail(rising: np.ndarray, is_right: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Threshold, guesses and right guesses of nobody, then of each candidate; all of equal score are guessed."""
        order = np.argsort(rising)
        reached = np.searchsorted(rising[order], rising[order][ranks], side="right")
        right = np.cumsum(is_right[order])[reached - 1]
        return np.append(-np.inf, rising[order][ranks]), np.append(0, reached), np.append(0, right)

    (lower, num_low, right_low), (upper, num_high, right_high) = tail(score, ~is_member), tail(-score, is_member)
    num_guesses, num_correct = num_low[:, None] + num_high, right_low[:, None] + right_high
    share = _share_bound(num_correct, num_guesses, 1.0 - confidence)
    low, high = np.unravel_index(np.argmax(np.where(lower[:, None] < -upper, share, -1.0)), share.shape)
    return float(lower[low]), float(-upper[high])


def crossfit_epsilon(folds: Sequence[tuple[Half, Half]], *, confidence: float = 0.95) -> EpsilonBound:
    """The bound by guesses whose thresholds (`guess_thresholds`) the half that chooses sets for the half that reports.

    What a half guesses is a function of the trained model and of the *other* half's coins; given those its own coins are still
    fair, so each half's number of right guesses is at most binomial. **The two numbers can't be added**: each half's guesses
    rest on the coins that the other number is of, so they rise and fall together. (At epsilon = 0, let a half guess "member"
    where an image is bright if bright images were members in the other half: both halves are right or both wrong.) So each
    half has half of the level, and the larger bound counts: valid however they depend on each other. One fold has the whole
    level.

    A group is one coin: its score is the mean of its samples' scores.

    Args:
        folds: (half that chooses, half that reports), one fold or two.
        confidence: One-sided; errors are those of `ldm_privacy.metrics`.
    """
    check_share("confidence", confidence)
    if not folds:
        raise UserError("no folds: pass one pair (half that chooses, half that reports), or two.")
    halves = []
    for chooses, reports in folds:
        lower, upper = guess_thresholds(*_units(chooses), confidence=1.0 - (1.0 - confidence) / len(folds))
        score, is_member = _units(reports)
        as_member, as_heldout = score >= upper, score <= lower
        right = int(is_member[as_member].sum() + (~is_member[as_heldout]).sum())
        halves.append(Guesses(right, int(as_member.sum() + as_heldout.sum()), len(score), lower, upper))
    return EpsilonBound.of(halves, confidence=confidence)


def _bounds(halves: Sequence[Guesses], confidence: float, delta: float) -> list[float]:
    each = 1.0 - (1.0 - confidence) / len(halves)
    return [
        epsilon_lower_bound(half.num_correct, half.num_guesses, confidence=each, delta=delta, num_coins=half.num_coins)
        for half in halves
    ]


def _share_bound(num_correct: np.ndarray, num_guesses: np.ndarray, alpha: float) -> np.ndarray:
    """The share q of right guesses with P[Bin(num_guesses, q) >= num_correct] = alpha; 0 where none is right."""
    some = np.maximum(num_correct, 1)
    return np.where(num_correct > 0, special.betaincinv(some, np.maximum(num_guesses, some) - some + 1, alpha), 0.0)


def _epsilon(share: np.ndarray) -> np.ndarray:
    """The epsilon whose randomised response is right with that chance; 0 below a half."""
    return special.logit(np.maximum(share, 0.5))


def _units(half: Half) -> tuple[np.ndarray, np.ndarray]:
    """Score and membership of each coin: samples, or groups."""
    score, is_member = (each.cpu().numpy() for each in check_scores(half.reported, half.is_member))
    if half.group is None:
        return score, is_member
    _, first, unit = np.unique(torch.as_tensor(half.group).cpu().numpy(), return_index=True, return_inverse=True)
    return np.bincount(unit, score) / np.bincount(unit), is_member[first]
