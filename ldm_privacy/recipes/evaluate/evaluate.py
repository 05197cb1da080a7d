"""Evaluating checkpoints: one audited and published, several compared."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ldm_privacy.audit.score_file import ScoreFile, read_scores
from ldm_privacy.config import Config, stored_tree
from ldm_privacy.config.compose import differences
from ldm_privacy.evidence.compare import check_one_split, compare
from ldm_privacy.evidence.verdict import verdict_of
from ldm_privacy.recipes.audit import audit_checkpoint
from ldm_privacy.recipes.check import check_audit
from ldm_privacy.recipes.gate import Evaluated
from ldm_privacy.recipes.gate_check import check_gate
from ldm_privacy.recipes.pilots import read_pilots
from ldm_privacy.recipes.publish import publish, without_history, without_reference
from ldm_privacy.recipes.reference import composed_with, read_with
from ldm_privacy.recipes.run_setup import RunSetup
from ldm_privacy.recipes.terminal import console, progress, tell
from ldm_privacy.report.comparison import print_comparison, write_comparison
from ldm_privacy.report.folder import FILES
from ldm_privacy.report.tables import print_audit, print_verdict
from ldm_privacy.runs.folder import RunFolder, next_free
from ldm_privacy.runs.history import ScoreHistory
from ldm_privacy.runs.lock import writing
from ldm_privacy.targets.record import Checkpoint


def evaluate_one(path: Path, overrides: Sequence[str], out: Path | None, reference: Path | None = None) -> Evaluated:
    """Audit one checkpoint, publish it, print its verdict and table.

    `reference`: another checkpoint, which its scores are compared with; see `check_references`.

    Raises:
        UserError: The checkpoint can't be read, or its data are not there or others.
    """
    checkpoint = read_with(path, overrides)
    other = None if reference is None else read_with(reference, overrides)
    composed = composed_with(checkpoint, overrides, other)
    check_gate(composed.tree)
    if any(item.startswith("audit.forecast") for item in overrides):  # those that the run named may be gone
        read_pilots(composed.tree)
    run = RunFolder.around(path)
    setup = setup_of(checkpoint, composed.config, run)
    folder = out or evaluation_of(path)
    audited = audit_checkpoint(setup, checkpoint, run, other)
    assert audited is not None  # there is one process
    changed = [
        key
        for key in differences(composed.tree, stored_tree(checkpoint.config))
        if key.split(".")[0] not in ("gate", "base", "autoencoder")
    ]
    if out is None and (reference is not None or changed):
        folder = next_free(folder, first=2)  # other attacks or samples: the run's own evaluation stays
    evaluation = publish(setup, composed, audited, folder, checkpoint=path, reference=reference)
    evidence = evaluation.evidence
    console.print(setup.describe(), highlight=False)
    print_audit(evidence.report, console, title=f"{path}, epoch {audited.epoch}", permuted=evidence.permuted)
    print_verdict(verdict_of(evidence), console)
    if without_history(setup, evidence.report):
        console.print(f"Earlier audits: {evaluation.facts['earlier audits']}.", highlight=False)
    if without_reference(setup, evidence.report):
        console.print(f"Reference: {evaluation.facts['reference']}.", highlight=False)
    more = ", captions.csv" if (folder / "captions.csv").exists() else ""
    tell(f"Written to {folder}: {FILES}{more}.\nOpen {folder / 'report.html'}")
    return Evaluated(folder / "scores.parquet", evaluation.ruling, composed.config.gate)


def evaluation_of(path: Path) -> Path:
    """The folder of a checkpoint's own evaluation."""
    return RunFolder.around(path).path / ("evaluation" if path.stem == "last" else f"evaluation-{path.stem}")


def setup_of(checkpoint: Checkpoint, config: Config, run: RunFolder) -> RunSetup:
    """The audit of a checkpoint, whose config that is. Raises UserError as `check_audit`, or for another's history."""
    setup = RunSetup(config, progress, split=checkpoint.split, stored=checkpoint.denoiser)
    ScoreHistory(run.scores, setup.provenance).check()
    check_audit(setup)
    return setup


def evaluate_several(
    named: Mapping[str, Path], out: Path | None, evaluate: Callable[[Path, Path | None], Evaluated]
) -> dict[str, Evaluated]:
    """Audit each of several checkpoints or targets (a scores.parquet stands for one), and compare them.

    Args:
        named: By name, in the order that they are compared in.
        out: Where the comparison goes, and each evaluation in a folder of its name; where each goes by itself if None.
        evaluate: (path, its folder or None) -> what is left.

    Returns:
        What was audited, by name.

    Raises:
        UserError: As `evaluate` and `compare`; they are of different splits.
    """
    known = {name: _split_hash(path) for name, path in named.items() if path.suffix in (".ckpt", ".parquet")}
    if known:
        check_one_split(known)  # before audits that take a while
    files: dict[str, ScoreFile] = {}
    evaluated: dict[str, Evaluated] = {}
    scores: list[Path] = []
    for name, path in named.items():
        if path.suffix != ".parquet":
            evaluated[name] = evaluate(path, None if out is None else out / name.replace("/", "-"))
            path = evaluated[name].scores
        scores.append(path)
        files[name] = read_scores(path)
    comparison = compare(files)
    print_comparison(comparison, console)
    folder = out or RunFolder.around(scores[0]).path / "comparison"
    with writing(folder, wait=True):  # one more comparison may write there
        write_comparison(comparison, folder)
    tell(f"Written to {folder}: comparison.html, comparison.json.")
    return evaluated


def _split_hash(path: Path) -> str:
    """Of the split that a checkpoint or a score file belongs to."""
    return read_scores(path).split_hash if path.suffix == ".parquet" else Checkpoint.read(path).split.hash
