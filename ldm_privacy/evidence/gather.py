"""Everything that stands behind a verdict: the audit, its controls, who is exposed, and what a whole set shows."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ldm_privacy.audit.kept import KeptScores
from ldm_privacy.audit.report import AuditReport
from ldm_privacy.audit.row import paired
from ldm_privacy.audit.samples import AuditedSamples
from ldm_privacy.audit.scores import informed
from ldm_privacy.controls.finding import Case, Finding, run_controls
from ldm_privacy.controls.thumbnails import nearest
from ldm_privacy.evidence.agreement import AttackAgreement, agreement_of
from ldm_privacy.evidence.dataset import DatasetVerdict, dataset_verdict
from ldm_privacy.evidence.epsilon import Proven
from ldm_privacy.evidence.exposure import Exposure, epoch_agreement, exposure_of
from ldm_privacy.evidence.image_onset import ImageOnsets, onsets_of
from ldm_privacy.evidence.null import PermutedRow, label_permutation
from ldm_privacy.metrics import PairedDifference, auroc
from ldm_privacy.registry import CONTROLS
from ldm_privacy.types import AuditKey, Done, Estimate, Images

NUM_SHOWN = 12
"""Exposed members that are shown beside their nearest held-out image."""


@dataclass(frozen=True)
class Evidence:
    """What an evaluation found, with everything that could explain it away.

    Attributes:
        report: The audit.
        key: The primary attack and mask; named in the config, not chosen by its result.
        insider, outsider: What the verdict rests on: its scores as calibrated by whoever has the run's checkpoints, and by
            whoever has the model alone; `key` where there are none. Neither is chosen by its result.
        permuted: Every row under permuted labels.
        findings: Of the controls, over all audited samples, by name.
        over_controls: AUROC of the insider's scores minus that of each finding's score, paired on the reported samples.
        exposure: The members, most exposed first.
        neighbours: For the first `NUM_SHOWN` of them: the sample index of the nearest held-out image, and its similarity.
        agreement: Who is found by which attack; None where no attack tells samples apart.
        onsets: When each image was memorized; None without enough earlier audits.
        by_epoch: Of the members' ranks at earlier audits with those of this one; empty without a history.
        reference: What calibrated scores compare the target with, in words.
        dataset: Whether the members as a set stand out; None where all of the insider's scores are the same.
        proven: What a proof says of epsilon, where there is one.
    """

    report: AuditReport
    key: AuditKey
    insider: AuditKey
    outsider: AuditKey
    permuted: dict[AuditKey, PermutedRow]
    findings: dict[str, Finding]
    over_controls: dict[str, PairedDifference]
    exposure: Exposure
    neighbours: tuple[Tensor, Tensor]
    agreement: AttackAgreement | None
    onsets: ImageOnsets | None
    by_epoch: dict[int, Estimate]
    dataset: DatasetVerdict | None
    reference: str = "its reference"
    proven: Proven | None = None


def gather_evidence(
    report: AuditReport,
    key: AuditKey,
    samples: AuditedSamples,
    images: Images,
    *,
    history: Mapping[int, KeptScores] | None = None,
    time: int = 0,
    reference: str = "its reference",
    proven: Proven | None = None,
    num_permutations: int = 200,
    seed: int = 0,
    progress: Done = lambda done, total=None: None,
) -> Evidence:
    """All controls and verdicts of an audit. No denoiser passes.

    Args:
        report: Of the audit.
        key: The primary attack and mask.
        samples: The audited samples, all of them, on the CPU.
        images: Of them.
        history: Scores at earlier audits, by epoch.
        time: Of this audit, after those of the history.
        reference: What the target was compared with, in words, where it was.
        proven: What a proof says of epsilon, where there is one: the audit's bound is set beside it.
        num_permutations, seed: Of the label permutation, the classifiers' folds and the random subsets.
        progress: Called with the number of finished steps, and of all.

    Raises:
        UserError: An image is not finite.
    """
    data, num_steps = report.data, len(list(CONTROLS)) + 2
    permuted = label_permutation(report, num_permutations=num_permutations, seed=seed)
    progress(1, num_steps)
    case = Case(samples, images, report.intervals, seed, report.reference_alone)
    findings = run_controls(case, lambda done, total=None: progress(1 + done))
    scores = {name: each.score for name, each in findings.items() if each.score is not None}
    insider, outsider = (informed(data.derived, key, with_history=known) for known in (True, False))
    exposure = exposure_of(report, insider)
    shown = torch.searchsorted(data.sample_index, exposure.sample_index[:NUM_SHOWN])
    row, similarity = nearest(case.thumbnails[shown], case.thumbnails[~data.is_member])
    evidence = Evidence(
        report=report,
        key=key,
        insider=insider,
        outsider=outsider,
        permuted=permuted,
        findings=findings,
        over_controls={name: _over_control(report, insider, score) for name, score in scores.items()},
        exposure=exposure,
        neighbours=(data.sample_index[~data.is_member][row], similarity),
        agreement=agreement_of(report, insider),
        onsets=onsets_of(report, insider, history or {}, time),
        by_epoch=epoch_agreement(report, insider, history or {}),
        dataset=dataset_verdict(report, insider, seed=seed),
        reference=reference,
        proven=proven,
    )
    progress(num_steps)
    return evidence


def _over_control(report: AuditReport, key: AuditKey, score: Tensor) -> PairedDifference:
    """AUROC of that key minus a control's, on the reported samples that have a control score (NaN = none).

    A control that is turned round on the half that chooses counts turned round.
    """
    data, known, turned = report.data, score.isfinite(), score.double().clone()
    for fold in data.folds:
        chooses, reports = fold.chooses & known, fold.reports
        if float(auroc(score[chooses], data.is_member[chooses])) < 0.5:
            turned[reports] = -turned[reports]
    # A control's orientation is free: one number.
    return paired(report.halves[key], turned, data, report.confidence, num_fitted=1, among=known)
