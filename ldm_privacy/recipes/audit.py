"""The audit of a target, whoever trained it: measure, attack, report."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ldm_privacy.audit.audit import Audit
from ldm_privacy.audit.collected import Collected, join
from ldm_privacy.audit.kept import KeptScores
from ldm_privacy.audit.reference import NOUN, referenced
from ldm_privacy.audit.report import AuditReport
from ldm_privacy.audit.samples import AuditedSamples
from ldm_privacy.config import stored_tree
from ldm_privacy.errors import UserError
from ldm_privacy.geometry.store import Store
from ldm_privacy.processes import gather_on_main, is_main
from ldm_privacy.recipes.check import check_geometry
from ldm_privacy.recipes.reference import compared_with, plain_record
from ldm_privacy.recipes.rehearsal import rehearse_audit
from ldm_privacy.recipes.setup import Setup
from ldm_privacy.runs.folder import RunFolder
from ldm_privacy.runs.history import ScoreHistory
from ldm_privacy.targets.checkpoint import target_of_checkpoint
from ldm_privacy.targets.record import Checkpoint
from ldm_privacy.targets.target import Target
from ldm_privacy.watch.watcher import Moment, look_with, results_of


@dataclass(frozen=True)
class Audited:
    """The audit of a target, with the samples that it was made on: all of them, ascending, on the CPU.

    Attributes:
        target: What was audited.
        report: What the audit found.
        samples: Whom.
        epoch: Finished epochs of the target.
        results: Of the watchers that look in an evaluation, by label.
    """

    target: Target
    report: AuditReport
    samples: AuditedSamples
    epoch: int
    results: Mapping[str, object] = field(default_factory=dict)


def audit_checkpoint(
    setup: Setup, checkpoint: Checkpoint, run: RunFolder, reference: Checkpoint | None = None
) -> Audited | None:
    """The audit of a checkpoint: both networks, channel map and split come from it alone.

    Every process audits its share; the main one gets the result, the others None. The scores of earlier audits come from the
    run's folder, where they lie there, and so does what a reference has of the samples.

    Raises:
        UserError: The images are others than those that the checkpoint was trained and audited on.
    """
    check_content(setup, checkpoint)
    target = target_of_checkpoint(checkpoint, setup.device, setup.condition.given)
    if reference is not None:
        target = compared_with(target, checkpoint, reference, setup.device)
    return audit_target(setup, target, run, Moment(checkpoint.epoch, checkpoint.step, is_last=True))


def audit_target(setup: Setup, target: Target, run: RunFolder, moment: Moment) -> Audited | None:
    """The audit of a target, which is told its condition already; see `audit_checkpoint`.

    Args:
        setup: Of the audit.
        target: On its device.
        run: Where its store and the scores of earlier audits lie, if anywhere.
        moment: Of its training.
    """
    whose = target.whose_reference
    # What can't be is told before anything is measured.
    check_geometry(setup, target.codec)
    setup.audit(setup.blank_samples(target.codec), whose_reference=whose)
    rehearse_audit(setup, target.codec, target.predictor)
    measuring = setup.measuring(target.codec, run.store)
    means = measuring.means(setup.audited_index)
    target = setup.checked(target, means)
    samples = setup.samples(measuring, means)
    audit = setup.audit(samples, whose_reference=whose)
    with setup.progress("Audit", len(samples)) as done:
        shards = gather_on_main(audit.collect(target.predictor, done))
    of_reference = [each for each in gather_on_main(_of_reference(setup, audit, target, run.store)) if each is not None]
    watchers = {label: each for label, each in setup.watchers(samples, setup.progress).items() if each.in_evaluation}
    look_with(watchers, target, moment, setup.device)
    whole = samples.gathered()
    if not is_main():
        return None
    history = earlier_audits(setup, audit, run, moment.epoch, whole.sample_index)
    scores = audit.scores(join(shards), history, join(of_reference) if of_reference else None)
    report = audit.report(scores)
    return Audited(target, report, whole, moment.epoch, results_of(watchers, moment.step))


def _of_reference(setup: Setup, audit: Audit, target: Target, folder: Path) -> Collected | None:
    """What the target's reference has of this process's samples; None where nothing is compared with it.

    Found in the folder, or asked and stored there where the reference has a fingerprint.
    """
    if target.reference is None or not audit.compared:
        return None
    store = Store(folder, NOUN) if target.reference_fingerprint else None
    told = plain_record(setup.condition.record())
    key = {**target.reference_fingerprint, "images": setup.data.duplicates.content_hash, "told": told}
    with setup.progress("Audit of the reference", len(audit.samples)) as done:
        return referenced(audit, target.reference, store, key, done)


def earlier_audits(
    setup: Setup, audit: Audit, run: RunFolder, epoch: int, sample_index: Tensor
) -> dict[int, KeptScores] | None:
    """What calibrations look back at, as in training; None where no scores of these samples under what they wrap lie there."""
    history = ScoreHistory(run.scores, setup.provenance)
    newest = history.read(until=epoch, keys=audit.looks_back_at, most=1).values()
    if not any(set(audit.calibrated) <= kept.scores.keys() and kept.has(sample_index) for kept in newest):
        return None
    return audit.look_back(history, until=epoch - 1)


def condition_record(setup: Setup) -> dict[str, Any]:
    """What a checkpoint says of the condition, with a SHA-256 of what every sample is told."""
    digest = hashlib.sha256()
    for name, value in sorted(setup.condition(setup.data.split.audited_index).items()):
        digest.update(name.encode() + value.contiguous().numpy().tobytes())
    return {**setup.condition.record(), "hash": digest.hexdigest()}


def check_content(setup: Setup, checkpoint: Checkpoint) -> None:
    """Raise UserError where the images, or what the denoiser is told of them, are not those of the checkpoint."""
    here = setup.data.duplicates.content_hash
    if checkpoint.content_hash != here:
        raise UserError(
            f"data.source: these are not the images that {checkpoint.path} was trained and audited on: hash {here[:12]}, not "
            f"{checkpoint.content_hash[:12]} (pixels or groups differ, though there are as many){_sources(setup, checkpoint)}. "
            "Name the same data, wherever they lie now."
        )
    if checkpoint.stage == "denoiser" and plain_record(checkpoint.denoiser.condition) != plain_record(condition_record(setup)):
        raise UserError(
            f"data.source: what the denoiser is told of these images is not what {checkpoint.path} was trained with: other "
            "labels, captions or another order of classes. Name the same data."
        )


def _sources(setup: Setup, checkpoint: Checkpoint) -> str:
    """Where the images come from and came from, in words, where that differs."""
    data = stored_tree(checkpoint.config).get("data")
    source = setup.config.data.source
    now, then = {"class": source.name, **source.arguments}, data.get("source") if isinstance(data, dict) else None
    if now == then or not isinstance(then, dict):
        return ""
    words = [" ".join(f"{name}={value}" for name, value in each.items()) for each in (now, then)]
    return f"; now from {words[0]}, then from {words[1]}"
