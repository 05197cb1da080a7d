"""From an audit to its evidence on disk: what train.py does at the end and evaluate.py does for a checkpoint."""

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ldm_privacy import __version__
from ldm_privacy.audit.report import AuditReport
from ldm_privacy.audit.row import named_sigma
from ldm_privacy.calibrations.base import SAMPLES_PER_NUMBER
from ldm_privacy.commands import called
from ldm_privacy.config import Composed
from ldm_privacy.evidence.epsilon import Proven
from ldm_privacy.evidence.gate import Ruling
from ldm_privacy.evidence.gather import gather_evidence
from ldm_privacy.evidence.limits.limit import Found
from ldm_privacy.recipes.audit import Audited
from ldm_privacy.recipes.pilots import compared
from ldm_privacy.recipes.setup import Setup
from ldm_privacy.report.curves import onset_lines, training_figures
from ldm_privacy.report.evaluation import Evaluation
from ldm_privacy.report.folder import evidence_figures, result_facts, result_figures, write_evaluation
from ldm_privacy.report.tables import INTERVAL_NOTE
from ldm_privacy.runs.folder import RunFolder
from ldm_privacy.runs.history import ScoreHistory
from ldm_privacy.runs.lock import writing
from ldm_privacy.runs.series import SeriesFile
from ldm_privacy.targets.privacy import Privacy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PLACES = ("path", "repo_id")
"""Arguments that say where images lie."""
LIBRARIES = ("torch", "diffusers", "lightning", "scikit-learn", "scipy")


def publish(
    setup: Setup,
    composed: Composed,
    audited: Audited,
    folder: Path,
    *,
    checkpoint: Path,
    reference: Path | None = None,
    run: RunFolder | None = None,
    command: str | None = None,
    beside: Mapping[str, str] = MappingProxyType({}),
    onsets: Sequence[str] = (),
    drawn: "Mapping[str, Figure] | None" = None,
) -> Evaluation:
    """Gather the evidence of an audit and write its folder; returns what was written.

    Args:
        setup, composed: Of the run.
        audited: The audit.
        folder: See `write_evaluation`.
        checkpoint: What was audited.
        reference: The checkpoint that it was compared with.
        run: Of which it is; the folder around it by default.
        command: That repeats the evaluation, of a target that was not trained here: its training isn't known.
        beside: Word of the command line -> where what it names lies, of such a target.
        onsets: A sentence for each onset; from the curves of the run where empty.
        drawn: Figures that were drawn before.
    """
    images, run, report = setup.data.images, run or RunFolder.around(checkpoint), audited.report
    keys = {setup.onset_key, *report.data.derived, *report.unmasked}
    earlier = ScoreHistory(run.scores, setup.provenance).read(until=audited.epoch - 1, keys=keys)
    with setup.progress("Controls and evidence", 0) as done:
        evidence = gather_evidence(
            report,
            setup.onset_key,
            audited.samples,
            images,
            history=earlier,
            time=audited.epoch,
            reference=audited.target.facts.get("reference", "its reference"),
            proven=None if audited.target.privacy is None else _proven(audited.target.privacy),
            seed=setup.config.seed,
            progress=done,
        )
    history = {key: value for key, value in SeriesFile(run.metrics).read("denoiser").items() if key[0] <= audited.epoch}
    codec, split = audited.target.codec, setup.data.split
    num_members, num_heldout = len(split.member_index), len(split.heldout_index)
    decoder = None if codec.network is None else codec.decode
    with setup.progress("Pictures", 0):
        figures = {
            **training_figures(history, [row.key for row in report.rows], evidence.key, report.data.derived, report.data.views),
            **result_figures(audited.results),
            **evidence_figures(evidence, audited.samples, setup.masks, decoder, images, drawn=drawn, seed=setup.config.seed),
        }
    stored = {
        "checkpoint": str(checkpoint),
        "epoch": audited.epoch if command is None else None,
        "version": __version__,
        "split_hash": setup.data.split.hash,
        "config": composed.tree,
        "beside": dict(beside),
        "note": INTERVAL_NOTE,
    }
    commands = (
        (command,)
        if command is not None
        else (
            f"{called('train', '--config', 'config.yaml')}  # the config below",
            evaluation_command(checkpoint, composed.config.plugins, reference),
        )
    )
    evaluation = Evaluation(
        evidence,
        figures,
        images,
        name=run.path.absolute().name,
        epoch=audited.epoch if command is None else None,
        target=audited.target.facts,
        facts={
            **_facts(setup, audited, checkpoint),
            "earlier audits": _history(setup, report, list(earlier)),
            **_without(setup, report),
            **result_facts(audited.results),
        },
        commands=commands,
        config=composed.to_yaml(),
        onsets=onsets or onset_lines(history, evidence.key),
        has_decoder=decoder is not None,
        results=audited.results,
        files=setup.data.files,
        ruling=ruling_of(setup, audited),
        forecasts=[]
        if command is not None
        else compared(composed.tree, history, num_members=num_members, num_heldout=num_heldout),
    )
    # Two audits of one checkpoint, or one that meets the end of the training.
    with writing(folder, wait=True), setup.progress("The report", 0):
        write_evaluation(folder, evaluation, facts=stored)
    return evaluation


def ruling_of(setup: Setup, audited: Audited) -> Ruling | None:
    """What the gate says of an audit; None where there are no limits."""
    return None if setup.gate is None else setup.gate.rule(Found(audited.report, setup.onset_key, audited.results))


def _proven(privacy: Privacy) -> Proven:
    """What DP-SGD proves of the training, as the audit's own bound is set beside it."""
    return Proven(privacy.epsilon, privacy.delta, privacy.covered)


def without_history(setup: Setup, report: AuditReport) -> list[str]:
    """Calibrations that are left out because the scores of earlier audits don't lie beside the checkpoint."""
    if any(each.needs_history for each in report.data.derived.values()):
        return []
    return [label for label, each in setup.calibrations.items() if each.needs_history]


def without_reference(setup: Setup, report: AuditReport) -> list[str]:
    """Calibrations that are left out because the target has no reference."""
    if any(each.reference for each in report.data.derived.values()):
        return []
    return [label for label, each in setup.calibrations.items() if each.needs_reference]


def _without(setup: Setup, report: AuditReport) -> dict[str, str]:
    missing = ", ".join(without_reference(setup, report))
    return {"reference": f"none, so what compares with one is left out ({missing})"} if missing else {}


def _history(setup: Setup, report: AuditReport, epochs: Sequence[int]) -> str:
    """Which earlier audits are known, in words."""
    known = f"at epoch {', '.join(map(str, epochs))}" if epochs else "none"
    if not (missing := without_history(setup, report)):
        data = report.data
        fitted = {name.rsplit("/", 2)[0] for name in data.coefficients}
        unfitted = [str(key) for key, of in data.derived.items() if of.needs_history and f"calibration/{key}" not in fitted]
        fewest = f"fewer than {2 * SAMPLES_PER_NUMBER} samples a side in a half"
        return known + (f"; nothing was fitted for {', '.join(unfitted)}: no earlier audit, or {fewest}" if unfitted else "")
    return (
        f"{known}; none of these samples with this attack lies beside the checkpoint, so what only the trainer can know is "
        f"left out ({', '.join(missing)})"
    )


def evaluation_command(checkpoint: Path, plugins: Sequence[str], reference: Path | None = None) -> str:
    """What evaluates that checkpoint: plug-ins are imported only where they are named."""
    compared = [] if reference is None else [f"reference={reference}"]
    return called("evaluate", f"ckpt={checkpoint}", *compared, *([f"plugins=[{','.join(plugins)}]"] if plugins else []))


def component_words(name: str, arguments: Mapping[str, Any]) -> str:
    """A component in words: a place by itself, other arguments with their names."""
    given = {key: value for key, value in arguments.items() if value is not None}
    return f"{name} {', '.join(str(value) if key in PLACES else f'{key} {value}' for key, value in given.items())}".strip()


def _facts(setup: Setup, audited: Audited, checkpoint: Path) -> dict[str, str]:
    """What a reader needs to know of how the numbers came about."""
    config, split, codec = setup.config, setup.data.split, audited.target.codec
    source, estimator = config.data.source, config.geometry.influence
    return {
        "checkpoint": str(checkpoint),
        **({"condition": f"{setup.condition.record()['class']}; {note}"} if (note := setup.condition.note) else {}),
        "data": component_words(source.name, source.arguments),
        **({} if config.data.group_column is None else {"groups": f"{config.data.group_column}; each lies on one side whole"}),
        "images": f"{config.data.channels} x {config.data.resolution} x {config.data.resolution}",
        "split": str(split),
        "split hash": split.hash,
        **({} if split.by_coins else {"epsilon": "not bounded: no coins decided who is a member (data.split=coin)"}),
        "identical images": str(setup.data.duplicates),
        "halves": "a hash of the sample index; whole groups together",
        "seed": f"{config.seed}, of the split {setup.split_seed}",
        **setup.facts,
        "influence": component_words(estimator.name, estimator.arguments),
        **(dict.fromkeys(("autoencoder", "influence"), "none: pixel space") if codec.network is None else {}),
        "timesteps": ", ".join(map(str, setup.timesteps)),
        **({"sigmas": ", ".join(map(named_sigma, setup.sigmas.values()))} if setup.sigmas else {}),
        "bootstrap": f"{config.audit.num_bootstrap} resamples",
        "device": f"{setup.device}, audit in {config.audit.precision}",
        "python": platform.python_version(),
        "version": __version__,
        **{library: version(library) for library in LIBRARIES},
    }
