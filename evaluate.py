"""Audit checkpoints: who is exposed, how sure we are, what it means."""

from pathlib import Path

from ldm_privacy.audit import ScoreFile, read_scores
from ldm_privacy.config.command_line import allow_only, parse, print_help
from ldm_privacy.errors import UserError
from ldm_privacy.evidence import check_one_split, compare, verdict_of
from ldm_privacy.publish import evaluate, split_hash_of
from ldm_privacy.report import print_audit, print_comparison, print_verdict, write_comparison
from ldm_privacy.report.folder import FILES
from ldm_privacy.report.terminal import console, progress, run_program
from ldm_privacy.training.run_folder import RunFolder

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
        if paths[0].suffix == ".parquet":
            raise UserError(f"ckpt: {paths[0]} is compared with others; name two at least, or a checkpoint to audit.")
        audit(paths[0], line.overrides, out)
        return 0
    named: dict[str, Path] = {}
    for path in paths:
        named[next(each for each in names_of(path) if each not in named)] = path
    check_one_split({name: split_hash_of(path) for name, path in named.items()})  # before audits that take a while
    files: dict[str, ScoreFile] = {}
    for name, path in named.items():
        if path.suffix != ".parquet":
            path = audit(path, line.overrides, None if out is None else out / name.replace("/", "-"))
        files[name] = read_scores(path)
    comparison = compare(files)
    print_comparison(comparison, console)
    folder = out or RunFolder.around(paths[0]).path / "comparison"
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
    of_run = path.parent.name if path.stem == "scores" else path.stem
    name = f"{RunFolder.around(path).path.absolute().name}/{of_run}"
    return [name, *(f"{name}-{number}" for number in range(2, 100))]


if __name__ == "__main__":
    run_program(main)
