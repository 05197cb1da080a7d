"""How far an interval must reach where two halves of the samples chose, or fitted, for each other.

A candidate that is lucky on both halves is chosen by both and reported by both; so the two parts of a crosswise mean depend on
each other although neither half had a say in its own rule. The error of the mean has a variance above `(v_A + v_B) / 4`: by
nothing where one candidate is clearly the best, by a third for three equal ones that share nothing, by up to a whole for
coefficients that were fitted to scores that know nothing. It is skewed as well.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise, product

import numpy as np
from scipy import stats

from ldm_privacy.metrics.half import Half, Part
from ldm_privacy.metrics.resampling import bootstrap_generator

_NUM_DRAWS = 2000
_SHIFTS = [sign * shift for shift, sign in product(range(1, 9), (1, -1))]
_PAIRS = (np.arange(_NUM_DRAWS) - np.array(_SHIFTS)[:, None]) % _NUM_DRAWS
"""(shifts, draws): of one half's draws, those of the other half that they are paired with."""
_OUT_OF_REACH = 4.0


def choice_reach(blocks: Sequence[Sequence[Half]], tail: float, *, seed: int = 0) -> tuple[float, float]:
    """How far, in standard deviations `sqrt(v_A + v_B) / 2`, an interval must reach below and above a crosswise mean.

    A quantile of the studentised error in a simulation of what the halves do, at least the normal one, at most sqrt(2) times
    that (halves that err alike). Two simulations, whose factors over the normal quantile are multiplied:

    * *Choice.* Errors e_A ~ N(0, Sigma_A), e_B ~ N(0, Sigma_B) of the candidates' AUROCs (DeLong; Obuchowski with groups). Each
      half chooses the largest of a + e, the other reports it: `(e_A[c_B] + e_B[c_A]) / 2`. The levels a are the means of the
      halves, each brought nearer to the best one by the standard deviation of that distance: equal candidates look unequal,
      and taking that for granted would hide that another one could have been chosen. Those that are still more than four
      standard deviations of a half's distance below the best are left out.
    * *Fit* of p coefficients, where `num_fitted` says so. Whitened features, whose direction each half finds as a discriminant
      would: u = delta + e, e ~ N(0, 1) in p dimensions; the other half's error along it is `e_A . u_B / |u_B|`. |delta| is the
      reported distance from chance (from no difference) in standard deviations, less sqrt(2), so that luck doesn't pass for
      signal. With nothing to find the halves' errors agree (variance factor 1.64, 1.78, 1.84 for p = 1, 2, 3), with much to
      find they don't.

    Args:
        blocks: [halves], or [a, b] where the number is a difference; each block chooses among its own candidates.
        tail: Probability beyond either bound.
        seed: Of the draws: 2,000 a half, each paired with 16 of the other half's. Exchanging the halves changes nothing.

    Returns:
        Below, above. O(candidates samples log samples) where `area` isn't given; covariances are taken from at most 1,000
        samples (or groups) a side. Errors: see `ldm_privacy.metrics`.
    """
    normal = float(stats.norm.isf(tail))
    found, num_fitted = [], max(half.num_fitted for block in blocks for half in block)
    if any(len(half.candidates) > 1 for block in blocks for half in block):
        found += [errors for errors in [_errors_of_choice(blocks, seed)] if errors is not None]
    if num_fitted:
        found.append(_errors_of_fit(num_fitted, _signal(blocks), seed))
    if not found or normal <= 0:
        return normal, normal
    # A bound lies above the truth where the error is large: the upper quantiles belong to the lower bound.
    above, below = np.prod([np.abs(np.quantile(each, [tail, 1.0 - tail])).clip(normal) / normal for each in found], axis=0)
    return normal * min(float(below), 2**0.5), normal * min(float(above), 2**0.5)


def choice_widening(halves: Sequence[Half], confidence: float = 0.95, *, seed: int = 0) -> float:
    """By how much a one-sided test of what was chosen crosswise must take its standard deviation for larger: 1 to sqrt(2).

    `choice_reach` below in units of the normal quantile; 1 for a single half. For tests whose statistic goes with the AUROC, as
    the difference of two means does (`widening` of `welch_verdict`).
    """
    normal = float(stats.norm.isf(1.0 - confidence))
    return choice_reach([halves], 1.0 - confidence, seed=seed)[0] / normal if len(halves) == 2 and normal > 0 else 1.0


def _errors_of_choice(blocks: Sequence[Sequence[Half]], seed: int) -> np.ndarray | None:
    """Studentised errors of the mean, one for each pair of draws; None where no block has more than one to choose."""
    contenders = [_contenders(block) for block in blocks]
    if all(len(kept) == 1 for kept, _ in contenders):
        return None
    level = np.concatenate([level for _, level in contenders])
    own = [slice(*ends) for ends in pairwise(np.cumsum([0] + [len(kept) for kept, _ in contenders]))]
    draws = _draws(len(level), seed)
    errors, choices, covariances = [], [], []
    for place in range(2):
        deviations = np.concatenate([block[place].deviations[kept] for block, (kept, _) in zip(blocks, contenders)])
        covariances.append(deviations @ deviations.T)
        errors.append(draws @ _root(covariances[place]))
        choices.append([part.start + (level + errors[place])[:, part].argmax(axis=1) for part in own])
    error, variance = 0.0, 0.0
    # Each half reports what the other one chose, in the draw that it is paired with.
    for of_half, covariance, chosen, mine, far in (
        (errors[0], covariances[0], choices[1], np.arange(_NUM_DRAWS), _PAIRS),
        (errors[1], covariances[1], choices[0], _PAIRS, np.arange(_NUM_DRAWS)),
    ):
        signed = list(zip((1, -1), chosen))
        error = error + sum(sign * of_half[mine, place[far]] for sign, place in signed)
        variance = variance + sum(s * t * covariance[i, j] for (s, i), (t, j) in product(signed, signed))[far]
    # One and the same candidate on both sides of a difference errs by rounding alone.
    errs = variance > 1e-12 * max(covariance.max() for covariance in covariances)
    return (np.where(errs, error, 0.0) / np.sqrt(np.where(errs, variance, 1.0))).ravel()


def _contenders(block: Sequence[Half]) -> tuple[np.ndarray, np.ndarray]:
    """Places of the candidates that a half may choose, and how far below the best they are taken to lie (<= 0).

    Left out are those more than `_OUT_OF_REACH` standard deviations of a half's distance below the best.
    """
    level = (block[0].areas + block[1].areas) / 2
    best = level.argmax()
    spreads = np.stack([((half.deviations - half.deviations[best]) ** 2).sum(axis=1) for half in block])
    level = np.minimum(0.0, level - level[best] + np.sqrt(spreads.sum(axis=0)) / 2)
    kept = np.flatnonzero(level >= -_OUT_OF_REACH * np.sqrt(spreads.max(axis=0)))
    return kept, level[kept]


@lru_cache(maxsize=16)
def _draws(num_candidates: int, seed: int) -> np.ndarray:
    return bootstrap_generator("choice", seed).normal(size=(_NUM_DRAWS, num_candidates))


def _errors_of_fit(num_fitted: int, signal: float, seed: int) -> np.ndarray:
    error = bootstrap_generator("fit", seed).normal(size=(_NUM_DRAWS, num_fitted))
    aim = error.copy()
    aim[:, 0] += max(0.0, signal - 2**0.5)
    aim /= np.linalg.norm(aim, axis=1, keepdims=True)
    pairs = [(np.roll(error, shift, axis=0), np.roll(aim, shift, axis=0)) for shift in _SHIFTS]
    return np.concatenate(
        [((error * far_aim).sum(axis=1) + (far_error * aim).sum(axis=1)) / 2**0.5 for far_error, far_aim in pairs]
    )


def _signal(blocks: Sequence[Sequence[Half]]) -> float:
    """Distance from chance, or from no difference, in standard deviations of a half: mean of the halves."""
    parts = [Part.of([block[place] for block in blocks]) for place in range(2)]
    chance = 0.5 if len(blocks) == 1 else 0.0
    return float(np.mean([(part.value - chance) / part.variance**0.5 if part.variance > 0 else 0.0 for part in parts]))


def _root(covariance: np.ndarray) -> np.ndarray:
    """The symmetric square root, of a singular one too."""
    value, vector = np.linalg.eigh(covariance)
    return (vector * np.sqrt(np.maximum(value, 0.0))) @ vector.T
