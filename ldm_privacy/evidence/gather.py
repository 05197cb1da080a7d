"""Everything that stands behind a verdict: the audit, its controls, who is exposed, and what a whole set shows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ldm_privacy.audit import AuditedSamples, AuditReport, SampleTable
from ldm_privacy.controls import (
    ImageFeatures,
    ModelFreeControl,
    NearDuplicates,
    denoiser_free_controls,
    image_features,
    influence_score,
    latent_norm_score,
    model_free_control,
    near_duplicates,
    nearest,
    thumbnail_features,
)
from ldm_privacy.evidence.exposure import Agreement, Exposure, attack_agreement, epoch_agreement, exposure_of
from ldm_privacy.evidence.null import PermutedRow, label_permutation
from ldm_privacy.metrics import (
    PairedDifference,
    PValueAtSize,
    WelchVerdict,
    auroc,
    auroc_difference,
    holm,
    p_value_by_set_size,
    welch_verdict,
)
from ldm_privacy.randomness import uniform
from ldm_privacy.types import AuditKey, Estimate, Image

NUM_SHOWN = 12
"""Exposed members that are shown beside their nearest held-out image."""
NUM_STEPS = 5
"""Of the progress that `gather_evidence` reports."""
IMAGES_AT_ONCE = 1024
NUM_FOLDS = 5
NUM_HALVINGS = 100


@dataclass(frozen=True)
class DatasetVerdict:
    """The members as a suspect set against the held-out samples, both of the reporting half.

    Attributes:
        test: One-sided Welch test of the scores of the primary key.
        by_size: How the p-value falls with the size of the suspect set.
        false_alarms: By size, the share of sets of held-out samples that the same test tells from other held-out samples. Small
            sets of skewed scores don't obey the t distribution: where this is above the level, the p-value can't be believed.
        adjusted: Holm-adjusted p-value of the same test for every row of the audit, tested together.
    """

    test: WelchVerdict
    by_size: list[PValueAtSize]
    false_alarms: dict[int, float]
    adjusted: dict[AuditKey, float]


@dataclass(frozen=True)
class Evidence:
    """What an evaluation found, with everything that could explain it away.

    Attributes:
        report: The audit.
        key: Attack and mask that the verdict rests on; named in the config, not chosen by its result.
        permuted: Every row under permuted labels.
        denoiser_free: AUROC of reconstruction error, influence and latent norm, over all audited samples; the intervals hold
            together.
        over_controls: AUROC of the primary attack minus that of each control, paired on the reported samples.
        model_free: Classifiers on image features; None where a side has too few samples.
        duplicates: Near-duplicates across the sides.
        exposure: The members, most exposed first.
        neighbours: For the first `NUM_SHOWN` of them: the sample index of the nearest held-out image, and its similarity.
        agreement: Of the members' ranks with those of the other attacks.
        by_epoch: Of the members' ranks at earlier audits with those of this one; empty without a history.
        dataset: Whether the members as a set stand out; None where all scores of the primary key are the same.
    """

    report: AuditReport
    key: AuditKey
    permuted: dict[AuditKey, PermutedRow]
    denoiser_free: dict[str, Estimate]
    over_controls: dict[str, PairedDifference]
    model_free: ModelFreeControl | None
    duplicates: NearDuplicates
    exposure: Exposure
    neighbours: tuple[Tensor, Tensor]
    agreement: dict[AuditKey, Agreement]
    by_epoch: dict[int, Estimate]
    dataset: DatasetVerdict | None


def gather_evidence(
    report: AuditReport,
    key: AuditKey,
    samples: AuditedSamples,
    reconstruction_error: Tensor,
    images: Callable[[Tensor], Image],
    *,
    history: Mapping[int, SampleTable] | None = None,
    num_permutations: int = 200,
    seed: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> Evidence:
    """All controls and verdicts of an audit. No denoiser passes.

    Args:
        report: Of the audit.
        key: The primary attack and mask.
        samples: The audited samples, in ascending order of sample index.
        reconstruction_error: (samples,) of the autoencoder, in the same order.
        images: Sample indices -> images.
        history: Scores under `key` at earlier audits, by epoch.
        num_permutations, seed: Of the label permutation, the classifiers' folds and the random subsets.
        progress: Called with the number of finished steps, `NUM_STEPS` in all.

    Raises:
        UserError: An image is not finite.
    """
    data = report.data
    is_member, index, confidence = data.is_member, data.sample_index, report.confidence
    permuted = label_permutation(report, num_permutations=num_permutations, seed=seed)
    progress(1)
    latent, geometry = samples.batch.latent.cpu(), samples.geometry
    controls = {
        "reconstruction error": -reconstruction_error,
        "influence": influence_score(geometry.influence[index]),
        "latent norm": latent_norm_score(latent),
    }
    # Bonferroni: the intervals hold together.
    together = 1 - (1 - confidence) / len(controls)
    denoiser_free = denoiser_free_controls(controls, is_member, confidence=together, group=data.group)
    parts, thumbnails = [], []
    for chunk in index.split(IMAGES_AT_ONCE):
        pixels = images(chunk)
        parts.append(image_features(pixels))
        thumbnails.append(thumbnail_features(pixels))
    features = ImageFeatures(torch.cat([part.value for part in parts]), parts[0].names)
    thumbnail = torch.cat(thumbnails)
    progress(2)
    units = data.group if data.group is not None else index
    enough = min(len(units[side].unique()) for side in (is_member, ~is_member)) >= 2 * NUM_FOLDS
    model_free = None
    if enough:
        model_free = model_free_control(
            features, is_member, group=data.group, num_folds=NUM_FOLDS, confidence=confidence, seed=seed
        )
        # The better one: an attack that beats it beats the other.
        best = max(model_free.auroc, key=lambda name: model_free.auroc[name].value)
        controls[f"{best} on image features"] = torch.full(is_member.shape, torch.nan, dtype=torch.float64)
        controls[f"{best} on image features"][model_free.row] = model_free.score[best]
    over_controls = {name: _over_control(report, key, score) for name, score in controls.items()}
    progress(3)
    duplicates = near_duplicates(thumbnail, is_member, index)
    progress(4)
    exposure = exposure_of(report, key)
    shown = thumbnail_features(images(exposure.sample_index[:NUM_SHOWN]))
    row, similarity = nearest(shown, thumbnail[~is_member])
    neighbours = (index[~is_member][row], similarity)
    agreement = attack_agreement(report, key)
    dataset = _dataset_verdict(report, key, seed)
    progress(NUM_STEPS)
    return Evidence(
        report=report,
        key=key,
        permuted=permuted,
        denoiser_free=denoiser_free,
        over_controls=over_controls,
        model_free=model_free,
        duplicates=duplicates,
        exposure=exposure,
        neighbours=neighbours,
        agreement=agreement,
        by_epoch=epoch_agreement(report, key, history or {}),
        dataset=dataset,
    )


def _over_control(report: AuditReport, key: AuditKey, score: Tensor) -> PairedDifference:
    """AUROC of the primary attack minus a control's, on the reported samples that have a control score (NaN = none).

    A control that is turned round on the calibration half counts turned round.
    """
    data, known = report.data, score.isfinite()
    calibration, reporting = data.is_calibration & known, report.is_reporting & known
    sign = 1.0 if float(auroc(score[calibration], data.is_member[calibration])) >= 0.5 else -1.0
    group = None if data.group is None else data.group[reporting]
    return auroc_difference(
        report.scores_at(key)[reporting],
        sign * score[reporting],
        data.is_member[reporting],
        confidence=report.confidence,
        group=group,
    )


def _dataset_verdict(report: AuditReport, key: AuditKey, seed: int) -> DatasetVerdict | None:
    if report.is_constant(key):
        return None
    is_member, group = report.reported_membership, report.reported_group
    groups: dict[str, Any] = {} if group is None else {"suspect_group": group[is_member], "heldout_group": group[~is_member]}

    def sides(row: AuditKey) -> tuple[Tensor, Tensor]:
        score = report.reported_scores(row)
        return score[is_member], score[~is_member]

    tests = {
        row.key: welch_verdict(*sides(row.key), confidence=report.confidence, **groups)
        for row in report.rows
        if not report.is_constant(row.key)
    }
    adjusted = dict(zip(tests, holm([test.p_value for test in tests.values()])))
    most = tests[key].num_suspect
    sizes = sorted({size for power in range(1, 20) for size in (2**power, 3 * 2 ** (power - 1)) if size < most} | {most})
    alpha = 1 - report.confidence
    by_size = p_value_by_set_size(*sides(key), sizes, alpha=alpha, seed=seed, **groups)
    false_alarms = _false_alarms(sides(key)[1], groups.get("heldout_group"), sizes, alpha, seed)
    return DatasetVerdict(tests[key], by_size, false_alarms, adjusted)


def _false_alarms(score: Tensor, group: Tensor | None, sizes: list[int], alpha: float, seed: int) -> dict[int, float]:
    """Held-out samples against held-out samples: each of `NUM_HALVINGS` random halves in the part of the suspect set."""
    unit = torch.arange(len(score)) if group is None else torch.unique(group, return_inverse=True)[1]
    num_units = int(unit.max()) + 1
    possible = [size for size in sizes if size <= num_units // 2]
    power: dict[int, list[float]] = {size: [] for size in possible}
    for number in range(NUM_HALVINGS if possible else 0):
        order = uniform("halving", (seed, number, torch.arange(num_units)), ()).argsort()
        suspect = torch.isin(unit, order[: num_units // 2])
        halves = score[suspect], score[~suspect]
        if any(bool(half.min() == half.max()) for half in halves):
            return {}
        groups = {} if group is None else {"suspect_group": group[suspect], "heldout_group": group[~suspect]}
        for point in p_value_by_set_size(*halves, possible, alpha=alpha, num_draws=4, seed=number, **groups):
            power[point.size].append(point.power)
    return {size: sum(shares) / len(shares) for size, shares in power.items()}
