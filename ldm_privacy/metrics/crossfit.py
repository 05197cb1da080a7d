"""Numbers of two halves of the samples that chose for each other: every sample reports, and none had a say in its own rule.

Each half chooses a candidate (a timestep, a keep fraction) by its AUROC there; the *other* half reports it, and a number is the
mean of the two. The parts are not independent: a candidate that was lucky on both halves is chosen by both and reported by both.
So the error of the mean has a variance above `(v_A + v_B) / 4` (by a third for three equal candidates that share nothing, by
nothing where one is clearly the best), it is skewed upwards, and an interval has to carry the choice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from scipy import special, stats
from torch import Tensor

from ldm_privacy.metrics.auroc import auroc, auroc_interval
from ldm_privacy.metrics.auroc_difference import PairedDifference, auroc_difference
from ldm_privacy.metrics.checks import check_scores, check_share
from ldm_privacy.metrics.placements import placements
from ldm_privacy.metrics.resampling import bootstrap_generator, sides_of
from ldm_privacy.types import Estimate

_NUM_DRAWS, _NUM_SHIFTS = 2000, 8
_MAX_UNITS = 1000


@dataclass(frozen=True)
class Half:
    """One half of the samples, as it reports.

    Attributes:
        score: (candidates, samples), higher = member: every candidate that the other half could have chosen, as it would be
            reported on this half. (samples,) where there was nothing to choose.
        is_member: (samples,) bool.
        chosen: The candidate that the other half did choose.
        group: (samples,) labels where samples are not independent.
        area: (candidates,) AUROCs of `score` where they are known already; computed otherwise.
    """

    score: Tensor
    is_member: Tensor
    chosen: int = 0
    group: Tensor | None = None
    area: Tensor | None = None

    @property
    def candidates(self) -> Tensor:
        """(candidates, samples)."""
        score = torch.as_tensor(self.score)
        return score[None] if score.ndim == 1 else score

    @property
    def reported(self) -> Tensor:
        """(samples,), scores of the chosen candidate."""
        return self.candidates[self.chosen]


def crossfit_auroc(halves: Sequence[Half], *, confidence: float = 0.95, num_bootstrap: int = 1000, seed: int = 0) -> Estimate:
    """AUROC of what was chosen crosswise: the mean of the halves' AUROCs, with an interval that carries the choice.

    One half: `auroc_interval`. Two: on the logit scale around the mean, `choice_reach` times `sqrt(v_A + v_B) / 2` to either
    side, v by DeLong with whole groups summed.

    Where a half shows no spread (`interval_without_spread`), or has a single sample (or group) on a side: the mean of the
    bounds of both halves at confidence `1 - (1 - confidence) / 2`, which hold together however they depend on each other.

    Args:
        halves: One or two; the same candidates in the same order.
        confidence, num_bootstrap, seed: As in `ldm_privacy.metrics`; so are errors. Resampled are groups where a half stands
            alone; `seed` is that of `choice_reach` too.
    """
    tail = (1.0 - check_share("confidence", confidence)) / 2
    parts = [_Part.of([half]) for half in _checked(halves)]
    value = float(np.mean([part.value for part in parts]))
    if len(halves) == 1 or any(part.is_degenerate for part in parts):
        shared: dict[str, Any] = {"confidence": 1.0 - 2 * tail / len(halves), "num_bootstrap": num_bootstrap, "seed": seed}
        each = [auroc_interval(half.reported, half.is_member, group=half.group, **shared) for half in halves]
        return Estimate(value, float(np.mean([one.lower for one in each])), float(np.mean([one.upper for one in each])))
    reach = np.array(choice_reach([halves], tail, seed=seed)) * [-1, 1]
    deviation = np.sqrt(sum(part.variance for part in parts)) / 2
    lower, upper = special.expit(special.logit(value) + reach * deviation / (value * (1.0 - value)))
    return Estimate(value, float(lower), float(upper))


def crossfit_difference(
    a: Sequence[Half],
    b: Sequence[Half],
    *,
    confidence: float = 0.95,
    alternative: Literal["two-sided", "greater"] = "two-sided",
    seed: int = 0,
) -> PairedDifference:
    """AUROC(a) - AUROC(b), both chosen crosswise on the same halves: the mean of the halves' paired differences.

    One half: `auroc_difference`. Two: value +- `choice_reach` times half the root of the summed paired DeLong variances; a and
    b choose independently, each among its own candidates. The p-value is the normal one of the difference in units of its
    deviation times (reach / normal quantile), so that it is below the tail exactly where the bound leaves 0 out.

    Where on a half both differ by the same amount for all samples, or a side has one sample (or group): mean of the bounds at
    confidence `1 - (1 - confidence) / 2`, and twice the smaller p-value.

    Args:
        a, b: One or two halves each, with the same samples in the same order. Errors are those of `auroc_difference`.
        confidence, alternative: As in `auroc_difference`.
        seed: Of `choice_reach`.
    """
    check_share("confidence", confidence)
    num_sides, pairs = 2 if alternative == "two-sided" else 1, list(zip(_checked(a), _checked(b), strict=True))
    shared: dict[str, Any] = {"confidence": 1.0 - (1.0 - confidence) / len(pairs), "alternative": alternative}
    each = [auroc_difference(x.reported, y.reported, x.is_member, group=x.group, **shared) for x, y in pairs]
    if len(each) == 1:
        return each[0]
    parts, tail = [_Part.of(pair) for pair in pairs], (1.0 - confidence) / num_sides
    value, deviation = float(np.mean([one.value for one in each])), np.sqrt(sum(part.variance for part in parts)) / 2
    if any(part.is_degenerate for part in parts):
        lower, upper = (float(np.mean(ends)) for ends in zip(*((one.lower, one.upper) for one in each)))
        return PairedDifference(value, lower, upper, min(1.0, 2 * min(one.p_value for one in each)))
    below, above = choice_reach([a, b], tail, seed=seed)
    normal, reach = stats.norm.isf(tail), below if value > 0 else above
    ratio = value / deviation * min(1.0, normal / reach) if deviation else 0.0
    p_value = stats.norm.sf(ratio) if num_sides == 1 else 2 * stats.norm.sf(abs(ratio))
    lower, upper = max(-1.0, value - below * deviation), min(1.0, value + above * deviation)
    return PairedDifference(value, float(lower), float(upper) if num_sides == 2 else 1.0, float(p_value))


def choice_reach(blocks: Sequence[Sequence[Half]], tail: float, *, seed: int = 0) -> tuple[float, float]:
    """How far, in standard deviations `sqrt(v_A + v_B) / 2`, an interval must reach below and above a crosswise mean.

    At least the normal quantile of `tail`. Else the quantile of the studentised error in a simulation of the choice: errors
    e_A, e_B ~ N(0, Sigma_A), N(0, Sigma_B) over the candidates (Sigma by DeLong; Obuchowski's with groups), each half choosing
    the largest of `a + e`, the other reporting it: `(e_A[c_B] + e_B[c_A]) / 2` over its own deviation. The level a of a
    candidate is what both halves show of it, but for its distance from the best one, which is shortened by its standard
    deviation: equal candidates look unequal, and taking that for granted would hide that either could have been chosen.

    Args:
        blocks: [halves], or [a, b] where the number is a difference; each block chooses among its own candidates.
        tail: Probability beyond each bound.
        seed: Of 2,000 draws a half, each paired with 16 of the other half's. Exchanging the halves changes nothing.

    Returns:
        Below, above. O(candidates samples log samples), the covariance from at most 1,000 samples (groups) a side.
    """
    normal = float(stats.norm.isf(tail))
    if all(len(half.candidates) == 1 for block in blocks for half in block):
        return normal, normal
    starts = np.cumsum([0] + [len(block[0].candidates) for block in blocks])
    own = [slice(*ends) for ends in zip(starts, starts[1:])]
    covariances = [_covariance([block[place] for block in blocks]) for place in range(2)]
    level, shared = np.concatenate([_levels(block) for block in blocks]), sum(covariances) / 4
    for part in own:
        best, spread = part.start + level[part].argmax(), np.diag(shared)
        deviation = np.sqrt(np.maximum(0.0, spread + spread[best] - 2 * shared[best]))[part]
        level[part] = np.minimum(0.0, level[part] - level[best] + deviation)
    draws = bootstrap_generator("choice", seed).normal(size=(_NUM_DRAWS, len(level)))
    errors = [draws @ _root(covariance) for covariance in covariances]
    choices = [[part.start + (level + error)[:, part].argmax(axis=1) for part in own] for error in errors]
    shifts = [sign * shift for shift, sign in product(range(1, _NUM_SHIFTS + 1), (1, -1))]
    found = np.concatenate([_crossed(errors, choices, covariances, (np.arange(_NUM_DRAWS) + shift) % _NUM_DRAWS) for shift in shifts])
    above, below = np.quantile(found, [tail, 1.0 - tail])
    return max(normal, float(below)), max(normal, -float(above))


def _crossed(errors: list[np.ndarray], choices: list[list[np.ndarray]], covariances: list[np.ndarray], other: np.ndarray) -> np.ndarray:
    """Studentised errors of the mean where draw i of the first half meets draw `other[i]` of the second."""
    here, signs, error, variance = np.arange(len(other)), (1, -1), 0.0, 0.0
    meetings = [(here, [each[other] for each in choices[1]]), (other, [each[here] for each in choices[0]])]
    for (draw, reported), of_half, covariance in zip(meetings, errors, covariances):
        signed = list(zip(signs, reported))
        error = error + sum(sign * of_half[draw, place] for sign, place in signed)
        variance = variance + sum(s * t * covariance[i, j] for (s, i), (t, j) in product(signed, signed))
    return np.divide(error, np.sqrt(np.maximum(variance, 0.0)), out=np.zeros(len(other)), where=variance > 0)


class _Part(NamedTuple):
    """What one half says of what it reports, or of the difference of two."""

    value: float
    variance: float
    is_degenerate: bool
    """Nothing estimates the variance: no spread, or one sample (or group) on a side."""

    @classmethod
    def of(cls, halves: Sequence[Half]) -> "_Part":
        scores = [half.reported for half in halves]
        sides = sides_of(halves[0].is_member, halves[0].group)
        terms = [placements(*check_scores(score, halves[0].is_member)) for score in scores]
        member, heldout = ((each[0] - each[1] if len(each) == 2 else each[0]).cpu().numpy() for each in zip(*terms))
        value = float(member.mean())
        if len(scores) == 2 and torch.equal(*scores):
            return cls(value, 0.0, False)
        if sides.num_pairs < 2 or (np.ptp(member) == 0 and np.ptp(heldout) == 0):
            return cls(value, 0.0, True)
        return cls(value, sides.member.mean_variance(member) + sides.heldout.mean_variance(heldout), False)


def _checked(halves: Sequence[Half]) -> Sequence[Half]:
    if len(halves) not in (1, 2) or len({len(half.candidates) for half in halves}) != 1:
        raise ValueError("one half or two, with the same candidates in the same order")
    return halves


def _levels(halves: Sequence[Half]) -> np.ndarray:
    """(candidates,) AUROC, mean of the halves."""
    areas = [auroc(half.candidates, half.is_member) if half.area is None else half.area for half in halves]
    return np.mean([area.double().cpu().numpy() for area in areas], axis=0)


def _covariance(halves: Sequence[Half]) -> np.ndarray:
    """(candidates, candidates) of the errors of the AUROCs; candidates of a, then those of b."""
    score, is_member = check_scores(torch.cat([half.candidates for half in halves]), halves[0].is_member)
    sides, taken, share = sides_of(is_member, halves[0].group), torch.zeros(len(is_member), dtype=torch.bool), []
    for on_side, side in ((is_member, sides.member), (~is_member, sides.heldout)):
        unit = np.arange(side.num_units) if side.unit is None else side.unit
        is_taken = unit % -(-side.num_units // _MAX_UNITS) == 0
        taken[on_side.cpu()] = torch.from_numpy(is_taken)
        share.append(len(np.unique(unit[is_taken])) / side.num_units)
    group = None if halves[0].group is None else torch.as_tensor(halves[0].group)[taken]
    part = sides_of(is_member[taken], group)
    member, heldout = (each.cpu().numpy() for each in placements(score[:, taken], is_member[taken]))
    return part.member.mean_covariance(member) * share[0] + part.heldout.mean_covariance(heldout) * share[1]


def _root(covariance: np.ndarray) -> np.ndarray:
    """The symmetric square root, of a singular one too."""
    value, vector = np.linalg.eigh(covariance)
    return (vector * np.sqrt(np.maximum(value, 0.0))) @ vector.T
