"""Audit checkpoints: who is exposed, how sure we are, what it means."""

from pathlib import Path

from ldm_privacy.audit import ScoreFile, read_scores
from ldm_privacy.config.command_line import allow_only, parse, print_help
from ldm_privacy.errors import UserError
from ldm_privacy.evidence import compare, verdict_of
from ldm_privacy.publish import evaluate
from ldm_privacy.report import print_audit, print_comparison, print_verdict, write_comparison
from ldm_privacy.report.folder import FILES
from ldm_privacy.report.terminal import console, progress, run_program

USAGE = """
python evaluate.py ckpt=runs/digits/checkpoints/last.ckpt [out=FOLDER] [audit.* data.* trainer.* key=value ...]
python evaluate.py ckpt=[a.ckpt,b.ckpt,...]    audit each and compare them; a scores.parquet can stand for a checkpoint
"""

SPLIT_KEYS = tuple(
    f"data.{key}"
    for key in ("num_members", "num_heldout", "num_public", "index_file", "group_column", "resolution", "channels", "seed")
)


def main(arguments: list[str]) -> int:
    line = parse(arguments, words=("ckpt", "out"))
    if line.help:
        return print_help(USAGE, console)
    if line.config is not None:
        raise UserError("--config: an evaluation takes its config from the checkpoint; change keys with key=value.")
    paths = [Path(name.strip()) for name in line.words.get("ckpt", "").strip("[]").split(",") if name.strip()]
    if not paths:
        raise UserError("ckpt: name a checkpoint, as in ckpt=runs/digits/checkpoints/last.ckpt.")
    why = "the checkpoint brings its own networks and split (audit.max_samples limits the audited samples)"
    allow_only(line.overrides, ("audit.", "data.", "geometry.", "trainer.", "plugins"), why, refused=SPLIT_KEYS)
    out = Path(line.words["out"]) if line.words.get("out") else None
    if len(paths) == 1:
        audit(paths[0], line.overrides, out)
        return 0
    files: dict[str, ScoreFile] = {}
    for path in paths:
        name = next(each for each in names_of(path) if each not in files)
        if path.suffix != ".parquet":
            path = audit(path, line.overrides, None if out is None else out / name.replace("/", "-"))
        files[name] = read_scores(path)
    comparison = compare(files)
    print_comparison(comparison, console)
    folder = out or paths[0].parent.parent / "comparison"
    write_comparison(comparison, folder)
    console.print(f"Written to {folder}: comparison.html, comparison.json.", highlight=False, soft_wrap=True)
    return 0


def audit(path: Path, overrides: list[str], out: Path | None) -> Path:
    """Audit one checkpoint, print its verdict and table; returns the path of its scores."""
    experiment, evidence, epoch, folder = evaluate(path, overrides, progress, out)
    console.print(experiment.describe(), highlight=False)
    print_audit(evidence.report, console, title=f"{path}, epoch {epoch}", permuted=evidence.permuted)
    print_verdict(verdict_of(evidence), console)
    console.print(f"Written to {folder}: {FILES}.\nOpen {folder / 'report.html'}", highlight=False, soft_wrap=True)
    return folder / "scores.parquet"


def names_of(path: Path) -> list[str]:
    """Short names for a checkpoint or score file, the best first: run/checkpoint, then with numbers."""
    name = f"{path.absolute().parent.parent.name}/{path.stem if path.suffix != '.parquet' else path.parent.name}"
    return [name, *(f"{name}-{number}" for number in range(2, 100))]


if __name__ == "__main__":
    run_program(main)
