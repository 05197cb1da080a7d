"""What the paper claims of memorized captions, as numbers with intervals (Kim, Kim, Lee 2025, 2509.25705)."""

from dataclasses import dataclass

from ldm_privacy.metrics import auroc_interval, mean_difference, pearson
from ldm_privacy.trajectories.record import TrajectoryReport, own_unit
from ldm_privacy.types import Estimate, Intervals

DETECTORS = ("d1", "d2", "gain", "gap", "gap_mean")
"""Larger = memorized."""
CORRELATED = ("d1", "d2", "d1_early", "d2_early", "d1_wrong", "d2_wrong")
_INTERVALS = Intervals()


@dataclass(frozen=True)
class Claim:
    """One row of the table.

    Attributes:
        kind: "error" (difference of the memorized captions' mean error to the held-out ones'), "separation" (AUROC of memorized
            against held-out captions) or "correlation" (Pearson's r with replication, over all captions).
        quantity: An attribute of `Guided`.
        guidance_scale: Of the trajectories.
        estimate: With its interval over captions.
        chance: What it would be where nothing is memorized: 0, 1/2 or 0.
    """

    kind: str
    quantity: str
    guidance_scale: float
    estimate: Estimate
    chance: float


def claims_of(report: TrajectoryReport, intervals: Intervals = _INTERVALS) -> tuple[Claim, ...]:
    """The table of claims.

    (i) Under guidance the clean predictions of the first steps are *further* from the training image for memorized captions
    than for held-out ones, without guidance *nearer*: the difference of mean errors. (ii) D1, D2, k and the branch gap tell
    memorized captions from held-out ones: AUROC. (iii) D1 and D2 go with replication: Pearson's r with the generation's
    similarity to the own image, over all captions; beside it of the first fifth of the states alone (the whole sum ends in
    the w0 of the generation itself, nearly that similarity), and with another member's latent in place of the own one.

    A number that has no interval is left out: (i) and (ii) with fewer than two captions on a side, (iii) where a side is
    constant or there are fewer than four captions; captions that share words or a patient count once. Intervals hold one by
    one.
    """
    claims = []
    compared, is_memorized, unit = report.against_heldout(report.memorized)
    units = report.unit[compared]
    has_sides = min(len(units[side].unique()) for side in (is_memorized, ~is_memorized)) >= 2
    whole, num_units = own_unit(report.unit), len(report.unit.unique())
    for scale, guided in report.guided.items():
        if has_sides:
            error = mean_difference(guided.error[compared], is_memorized, confidence=intervals.confidence, group=unit)
            claims.append(Claim("error", "error", scale, error, 0.0))
            for name in DETECTORS:
                area = auroc_interval(getattr(guided, name)[compared], is_memorized, **intervals.options(unit))
                claims.append(Claim("separation", name, scale, area, 0.5))
        for name in CORRELATED:
            value = getattr(guided, name)
            if num_units >= 4 and all(each.max() > each.min() for each in (value, guided.similarity)):
                found = pearson(value, guided.similarity, **intervals.options(whole))
                claims.append(Claim("correlation", name, scale, found, 0.0))
    return tuple(claims)
