"""The audit of a target, whoever trained it: measure, attack, report."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ldm_privacy.audit.audit import Audit
from ldm_privacy.audit.collected import join
from ldm_privacy.audit.kept import KeptScores
from ldm_privacy.audit.report import AuditReport
from ldm_privacy.audit.samples import AuditedSamples
from ldm_privacy.config import stored_tree
from ldm_privacy.errors import UserError
from ldm_privacy.processes import gather_on_main, is_main
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


def audit_checkpoint(setup: Setup, checkpoint: Checkpoint, run: RunFolder) -> Audited | None:
    """The audit of a checkpoint: both networks, channel map and split come from it alone.

    Every process audits its share; the main one gets the result, the others None. The scores of earlier audits come from the
    run's folder, where they lie there.

    Raises:
        UserError: The images are others than those that the checkpoint was trained and audited on.
    """
    check_content(setup, checkpoint)
    target = target_of_checkpoint(checkpoint, setup.device, setup.condition.given)
    return audit_target(setup, target, run, Moment(checkpoint.epoch, checkpoint.step, is_last=True))


def audit_target(setup: Setup, target: Target, run: RunFolder, moment: Moment) -> Audited | None:
    """The audit of a target, which is told its condition already; see `audit_checkpoint`.

    Args:
        setup: Of the audit.
        target: On its device.
        run: Where its store and the scores of earlier audits lie, if anywhere.
        moment: Of its training.
    """
    setup.audit(setup.blank_samples(target.codec))  # a mask that can't be is told before anything is measured
    rehearse_audit(setup, target.codec, target.predictor)
    measuring = setup.measuring(target.codec, run.store)
    means = measuring.means(setup.audited_index)
    target = setup.checked(target, means)
    samples = setup.samples(measuring, means)
    audit = setup.audit(samples)
    with setup.progress("Audit", len(samples)) as done:
        shards = gather_on_main(audit.collect(target.predictor, done))
    watchers = {label: each for label, each in setup.watchers(samples, setup.progress).items() if each.in_evaluation}
    look_with(watchers, target, moment, setup.device)
    whole = samples.gathered()
    if not is_main():
        return None
    history = earlier_audits(setup, audit, run, moment.epoch, whole.sample_index)
    return Audited(target, audit.compute(join(shards), history), whole, moment.epoch, results_of(watchers))


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
    if checkpoint.stage == "denoiser" and _plain(checkpoint.denoiser.condition) != _plain(condition_record(setup)):
        raise UserError(
            f"data.source: what the denoiser is told of these images is not what {checkpoint.path} was trained with: other "
            "labels, captions or another order of classes. Name the same data."
        )


def _plain(record: Mapping[str, Any]) -> dict[str, Any]:
    """A condition's record without the tensors that a checkpoint gave back to it."""
    kept = {name: _plain(value) if isinstance(value, Mapping) else value for name, value in record.items()}
    return {name: value for name, value in kept.items() if not isinstance(value, Tensor)}


def _sources(setup: Setup, checkpoint: Checkpoint) -> str:
    """Where the images come from and came from, in words, where that differs."""
    data = stored_tree(checkpoint.config).get("data")
    source = setup.config.data.source
    now, then = {"class": source.name, **source.arguments}, data.get("source") if isinstance(data, dict) else None
    if now == then or not isinstance(then, dict):
        return ""
    words = [" ".join(f"{name}={value}" for name, value in each.items()) for each in (now, then)]
    return f"; now from {words[0]}, then from {words[1]}"
