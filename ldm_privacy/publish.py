"""From an audit to its evidence on disk: what train.py does at the end and evaluate.py does for a checkpoint."""

import platform
from collections.abc import Sequence
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from ldm_privacy import __version__
from ldm_privacy.assemble import Experiment, Progress
from ldm_privacy.audit import read_scores
from ldm_privacy.check import check_audit
from ldm_privacy.config import Composed, compose_stored
from ldm_privacy.data import Split
from ldm_privacy.evidence import NUM_STEPS, Evidence, gather_evidence
from ldm_privacy.measure import Evaluation, evaluate_checkpoint
from ldm_privacy.report.curves import onset_lines, training_figures
from ldm_privacy.report.evidence_page import Protocol
from ldm_privacy.report.folder import evidence_figures, write_evaluation
from ldm_privacy.report.tables import INTERVAL_NOTE
from ldm_privacy.training.checkpoint import RECORD, epochs_in, load_checkpoint
from ldm_privacy.training.loggers import TidyLogger
from ldm_privacy.training.run_folder import RunFolder
from ldm_privacy.training.score_history import ScoreHistory

LIBRARIES = ("torch", "diffusers", "lightning", "scikit-learn", "scipy")


def publish(
    experiment: Experiment,
    composed: Composed,
    evaluation: Evaluation,
    folder: Path,
    *,
    checkpoint: Path,
    epoch: int,
    onsets: Sequence[str] = (),
) -> tuple[Evidence, dict[str, Figure]]:
    """Gather the evidence of an audit and write its folder; returns the evidence and every figure by name.

    Args:
        experiment, composed: Of the run.
        evaluation: The audit.
        folder: See `write_evaluation`.
        checkpoint: What was audited.
        epoch: Finished epochs of it.
        onsets: A sentence for each onset; from the curves of the run where empty.
    """
    config, split = experiment.config, experiment.data.split
    images = experiment.data.images
    with experiment.progress("Controls and evidence", NUM_STEPS) as done:
        evidence = gather_evidence(
            evaluation.report,
            experiment.onset_key,
            evaluation.samples,
            evaluation.reconstruction,
            images,
            history=ScoreHistory(RunFolder.around(checkpoint).scores).read(experiment.onset_key, until=epoch - 1),
            seed=config.seed,
            progress=done,
        )
    run = RunFolder.around(checkpoint)
    history = TidyLogger(run.metrics).read("denoiser") if run.metrics.is_file() else {}
    history = {(at, series): value for (at, series), value in history.items() if at <= epoch}
    curves = training_figures(history, [row.key for row in evaluation.report.rows], evidence.key)
    figures = {**curves, **evidence_figures(evidence, evaluation.samples, experiment.masks(), images)}
    source, estimator = config.data.source, config.geometry.influence
    facts = {
        "checkpoint": str(checkpoint),
        "data": f"{source.name} {source.arguments or ''}".strip(),
        "images": f"{config.data.channels} x {config.data.resolution} x {config.data.resolution}",
        "split": f"{len(split.member_index)} members, {len(split.heldout_index)} held-out, {len(split.public_index)} public",
        "split hash": split.hash,
        "identical images": str(experiment.data.duplicates),
        "halves": "a hash of the sample index; whole groups together",
        "seed": f"{config.seed}, of the split {experiment.split_seed}",
        "latents": evaluation.normalisation,
        "autoencoder": f"trained on {config.autoencoder.train_on}" if config.autoencoder.max_epochs else "not trained here",
        "influence": f"{estimator.name} {estimator.arguments or ''}".strip(),
        "timesteps": ", ".join(map(str, config.audit.timesteps)),
        "bootstrap": f"{config.audit.num_bootstrap} resamples",
        "device": f"{experiment.device}, audit in {config.audit.precision}",
        "python": platform.python_version(),
        "version": __version__,
        **{library: version(library) for library in LIBRARIES},
    }
    name = RunFolder.around(checkpoint).path.absolute().name
    commands = ("python train.py --config config.yaml  # the config below", f"python evaluate.py ckpt={checkpoint}")
    protocol = Protocol(name, epoch, facts, commands, composed.to_yaml())
    stored: dict[str, Any] = {
        "checkpoint": str(checkpoint),
        "epoch": epoch,
        "version": __version__,
        "split_hash": split.hash,
        "config": composed.tree,
        "note": INTERVAL_NOTE,
    }
    write_evaluation(
        folder, evidence, protocol, figures, images, facts=stored, onsets=onsets or onset_lines(history, evidence.key)
    )
    return evidence, figures


def split_hash_of(path: Path) -> str:
    """The hash of the split that a checkpoint or a score file belongs to.

    Raises:
        UserError: It can't be read.
    """
    if path.suffix == ".parquet":
        return read_scores(path).split_hash
    return Split.from_state_dict(load_checkpoint(path)[RECORD]["split"]).hash


def evaluate(
    path: Path, overrides: Sequence[str], progress: Progress, folder: Path | None
) -> tuple[Experiment, Evidence, int, Path]:
    """Audit one checkpoint and publish it; returns its experiment, the evidence, its epoch and the folder written.

    Raises:
        UserError: The checkpoint can't be read, or its data are not there or others.
    """
    checkpoint = load_checkpoint(path)
    composed = compose_stored(checkpoint[RECORD]["config"], overrides)
    experiment = Experiment.from_checkpoint(composed.config, checkpoint, progress)
    check_audit(experiment)
    run = RunFolder.around(path)
    evaluation = evaluate_checkpoint(experiment, checkpoint, store_folder=run.influence)
    assert evaluation is not None  # there is one process
    epoch = epochs_in(checkpoint)
    if folder is None:
        folder = run.path / ("evaluation" if path.stem == "last" else f"evaluation-{path.stem}")
        if overrides:  # other attacks or samples: the run's own evaluation stays
            folder = next(each for number in count(2) if not (each := folder.with_name(f"{folder.name}-{number}")).exists())
    evidence, _ = publish(experiment, composed, evaluation, folder, checkpoint=path, epoch=epoch)
    return experiment, evidence, epoch, folder
