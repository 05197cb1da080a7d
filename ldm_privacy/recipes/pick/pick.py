"""Picking the last safe checkpoint: each audited on the same samples, or read where it was audited before."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ldm_privacy import __version__
from ldm_privacy.audit.report import AuditReport, report_of
from ldm_privacy.audit.score_file import read_scores, write_scores
from ldm_privacy.audit.scores import TUNED
from ldm_privacy.commands import called
from ldm_privacy.config import EvaluationConfig
from ldm_privacy.evidence.gate import Gate
from ldm_privacy.evidence.limits.auroc import AurocLimit
from ldm_privacy.evidence.limits.limit import Found
from ldm_privacy.evidence.limits.tpr import TprLimit
from ldm_privacy.evidence.pick import Candidate, Pick
from ldm_privacy.recipes.audit import audit_checkpoint
from ldm_privacy.recipes.evaluate.check import TargetWords
from ldm_privacy.recipes.evaluate.evaluate import evaluation_of, setup_of
from ldm_privacy.recipes.evaluate.target import TargetEvaluation
from ldm_privacy.recipes.gate import write_rulings
from ldm_privacy.recipes.gate_check import check_gate
from ldm_privacy.recipes.pick.command import check_limit
from ldm_privacy.recipes.pick.run import checkpoints_of_run
from ldm_privacy.recipes.reference import composed_with, read_with
from ldm_privacy.recipes.setup import Setup
from ldm_privacy.recipes.terminal import console, tell
from ldm_privacy.report.metrics_file import write_json
from ldm_privacy.report.pick import print_pick, write_pick
from ldm_privacy.runs.folder import RunFolder
from ldm_privacy.runs.lock import writing

DECIDES = ("audit", "autoencoder", "data", "denoiser", "geometry", "plugins", "seed", "target")
"""Sections and keys of a config that scores depend on."""
DECIDES_NOTHING = ("every_n_epochs", "forecast", "stop")
"""Of `audit`, what they don't depend on."""


class PickedAudit(NamedTuple):
    """What was found of one checkpoint, and where it was read; None where it was audited for it."""

    found: Found
    read: Path | None


@dataclass(frozen=True)
class Subject:
    """A checkpoint in its turn.

    Attributes:
        name: Of its own among the others.
        path: Where it lies.
        epoch: Finished epochs; None where its training isn't known.
        setup: Of its audit.
        tree: The config, as evaluations store it.
        audit: Makes the audit.
        evaluation: Where the one that was evaluated by itself would lie.
        is_trained: It had a step of training at least, or that isn't known.
        beside: Word of the command line -> where what it names lies.
    """

    name: str
    path: Path
    epoch: int | None
    setup: Setup
    tree: Mapping[str, Any]
    audit: Callable[[], Found]
    evaluation: Path
    is_trained: bool = True
    beside: Mapping[str, str] = field(default_factory=dict)


def pick_of_run(paths: Sequence[Path], overrides: Sequence[str], out: Path) -> int:
    """Name the last safe one among checkpoints of a run of this program; returns the exit code.

    All are audited with the config of the newest and the overrides, on the same samples, which are measured once.

    Raises:
        UserError: As `checkpoints_of_run`; there is no limit; the data are not there or others.
    """
    listed = checkpoints_of_run(paths, overrides)
    newest, run = read_with(listed[-1].path, overrides), RunFolder.around(listed[-1].path)
    composed = composed_with(newest, overrides)
    check_gate(composed.tree)
    check_limit(composed.tree.get("gate") or {})
    setup = setup_of(newest, composed.config, run)
    setup.memory = {}
    del newest
    names = unique([each.path.stem for each in listed])

    def subjects() -> Iterator[Subject]:
        for name, each in zip(names, listed):

            def audit(path: Path = each.path) -> Found:
                audited = audit_checkpoint(setup, read_with(path, overrides), run)
                assert audited is not None  # there is one process
                return Found(audited.report, setup.onset_key, audited.results)

            yield Subject(
                name, each.path, each.time[0], setup, composed.tree, audit, evaluation_of(each.path), each.time > (0, 0)
            )

    def next_command(named: Path | None) -> str:
        if named is None and run.config.is_file():  # one that keeps a checkpoint within the limits
            gate = [each for each in overrides if each.startswith("gate.")]
            return called("train", "--config", run.config, *gate, "audit.stop.at=undecided")
        return called("evaluate", f"ckpt={named or listed[0].path}", *overrides)

    return _pick(subjects(), len(listed), out, next_command)


def pick_of_targets(asked: TargetWords, paths: Sequence[Path], words: Sequence[str], out: Path) -> int:
    """Name the last safe one among targets that were not trained here, in their order; returns the exit code.

    Args:
        asked: Config, what lies beside them, names.
        paths: In the order of training.
        words: Of the command line, but for the target.
        out: Where what is found is written.

    Raises:
        UserError: One can't be opened, or the data don't go with it.
    """
    evaluate, names = TargetEvaluation(asked.tree, **asked.beside), unique([asked.names[path] for path in paths])

    def subjects() -> Iterator[Subject]:
        for name, path in zip(names, paths):
            ready = evaluate.prepared(path, name)

            def audit(ready: Any = ready) -> Found:
                audited = ready.audited()
                return Found(audited.report, ready.setup.onset_key, audited.results)

            of = ready.setup, ready.composed.tree, audit, ready.run.evaluation
            yield Subject(name, path, None, *of, beside=evaluate.beside)

    def next_command(named: Path | None) -> str:
        return called("evaluate", f"ckpt={named or paths[0]}", *words)

    return _pick(subjects(), len(paths), out, next_command)


def _pick(subjects: Iterator[Subject], count: int, out: Path, next_command: Callable[[Path | None], str]) -> int:
    """Audit each in turn, print and write what was found; returns the exit code."""
    candidates, places, sections = list[Candidate](), dict[str, Path](), []
    with writing(out):
        for number, subject in enumerate(subjects, 1):
            setup = subject.setup
            only_what_is_held(setup.config)
            found, read = _audited(subject, out)
            assert setup.gate is not None
            area = found.report.row(found.key).metrics.auroc
            candidate = Candidate(subject.name, subject.epoch, area, setup.gate.rule(found), subject.is_trained)
            candidates.append(candidate)
            places[subject.name] = subject.path
            sections.append(setup.config.gate)
            how = "audited" if read is None else f"read from {read}"
            tell(f"{number} of {count}: {candidate}, AUROC {area}: {candidate.ruling.decision} ({how})")
        pick = Pick(candidates, found.report.confidence, primary=str(found.key))
        following = next_command(None if pick.named is None else places[pick.named.name])
        write_pick(pick, out, places=places, following=following)
        print_pick(pick, console)
        write_rulings({each.name: each.ruling for each in candidates}, sections)
    tell(f"Written to {out}: pick.html, pick.json.\nOpen {out / 'pick.html'}\nNext: {following}")
    return pick.exit_code


def only_what_is_held(config: EvaluationConfig) -> None:
    """Leave out the watchers that no limit asks: one of generations is all that may be left."""
    is_held = config.gate.copies is not None
    config.watch = {label: each for label, each in config.watch.items() if is_held and each.name == "generations"}


def unique(names: Sequence[str]) -> list[str]:
    """Each as it is, or with a number where it came before."""
    found: list[str] = []
    for name in names:
        found.append(next(each for each in (name, *(f"{name}-{k}" for k in range(2, len(names) + 2))) if each not in found))
    return found


def _audited(subject: Subject, out: Path) -> PickedAudit:
    """Read from an evaluation of the same checkpoint with the same config or from an earlier pick, or else audited and kept."""
    setup, folder = subject.setup, out / subject.name
    assert setup.gate is not None
    if is_of_scores(setup.gate):
        for place in (subject.evaluation, folder):
            if (report := _stored(subject, place)) is not None:
                return PickedAudit(Found(report, setup.onset_key), place)
    found = subject.audit()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.json").unlink(missing_ok=True)  # last of all it is written again: without it no scores are read
    write_scores(found.report, folder / "scores.parquet", split_hash=setup.data.split.hash)
    write_json(folder / "metrics.json", {**_identity(subject), "series": found.report.series()})
    return PickedAudit(found, None)


def is_of_scores(gate: Gate) -> bool:
    """Whether all that the limits hold is in a file of scores; what was chosen among many keep fractions isn't."""
    return all(
        isinstance(each, AurocLimit | TprLimit) and (each.attack is None or "/" in each.attack.removesuffix(f"/{TUNED}"))
        for each in gate.limits
    )


def _identity(subject: Subject) -> dict[str, Any]:
    """What scores are of."""
    return {
        "checkpoint": str(subject.path),
        "epoch": subject.epoch,
        "version": __version__,
        "split_hash": subject.setup.data.split.hash,
        "config": subject.tree,
        "beside": dict(subject.beside),
    }


def _stored(subject: Subject, folder: Path) -> AuditReport | None:
    """The report of the scores in that folder; None where none are, or they are of something else or older than that."""
    setup, file = subject.setup, folder / "metrics.json"
    try:
        stored = json.loads(file.read_text())
        written = file.stat().st_mtime
        mine = json.loads(json.dumps(_identity(subject)))
        is_same = all(stored[name] == mine[name] for name in ("epoch", "version", "split_hash", "beside"))
        then = Path(stored["checkpoint"])
        # A run may have been moved, and its epochs tell its checkpoints apart; other files of one name are told by their place.
        is_same &= then.name == subject.path.name if subject.epoch is not None else then.resolve() == subject.path.resolve()
        is_same &= decisive(stored["config"]) == decisive(mine["config"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    files = [each for place in (subject.path, *map(Path, subject.beside.values())) for each in (place, *place.rglob("*"))]
    scores = folder / "scores.parquet"
    if not is_same or not scores.is_file() or max(each.stat().st_mtime for each in files) > written:
        return None
    return report_of(read_scores(scores).data, intervals=setup.intervals, target_fprs=tuple(setup.config.audit.target_fprs))


def decisive(tree: Mapping[str, Any]) -> dict[str, Any]:
    """What of a config decides scores."""
    found = {name: tree.get(name) for name in DECIDES}
    found["audit"] = {name: value for name, value in tree["audit"].items() if name not in DECIDES_NOTHING}
    return found
