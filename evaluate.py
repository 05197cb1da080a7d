"""Audit a checkpoint: who is exposed, and how sure we are."""

from pathlib import Path

from omegaconf import OmegaConf

from ldm_privacy import __version__
from ldm_privacy.assemble import Experiment
from ldm_privacy.config import finish, merge, parse_overrides
from ldm_privacy.config.command_line import allow_only, parse, print_help
from ldm_privacy.errors import UserError
from ldm_privacy.report import print_audit, write_figures, write_metrics, write_scores
from ldm_privacy.report.tables import INTERVAL_NOTE
from ldm_privacy.report.terminal import console, progress, run_program
from ldm_privacy.training.checkpoint import RECORD, epochs_in, load_checkpoint

USAGE = """
python evaluate.py ckpt=runs/digits/checkpoints/last.ckpt [out=FOLDER] [audit.* data.* trainer.* key=value ...]
"""

SPLIT_KEYS = tuple(
    f"data.{key}"
    for key in ("num_members", "num_heldout", "num_public", "index_file", "group_column", "resolution", "channels")
)


def main(arguments: list[str]) -> int:
    line = parse(arguments, words=("ckpt", "out"))
    if line.help:
        return print_help(USAGE, console)
    if line.config is not None:
        raise UserError("--config: an evaluation takes its config from the checkpoint; change keys with key=value.")
    if not line.words.get("ckpt"):
        raise UserError("ckpt: name a checkpoint, as in ckpt=runs/digits/checkpoints/last.ckpt.")
    path = Path(line.words["ckpt"])
    out = Path(line.words["out"]) if line.words.get("out") else path.parent.parent / "evaluation"
    why = "the checkpoint brings its own networks and split (audit.max_samples limits the audited samples)"
    allow_only(line.overrides, ("audit.", "data.", "geometry.", "trainer."), why, refused=SPLIT_KEYS)
    checkpoint = load_checkpoint(path)
    stored = OmegaConf.to_container(OmegaConf.create(checkpoint[RECORD]["config"]))
    composed = finish(merge(stored, parse_overrides(line.overrides)))
    experiment = Experiment.from_checkpoint(composed.config, checkpoint, progress)
    console.print(experiment.describe(), highlight=False)
    evaluation = experiment.evaluate(checkpoint, store_folder=path.parent.parent / "influence")
    report = evaluation.report
    epoch = epochs_in(checkpoint)
    print_audit(report, console, title=f"{path}, epoch {epoch}")
    out.mkdir(parents=True, exist_ok=True)
    facts = {
        "checkpoint": str(path),
        "epoch": epoch,
        "version": __version__,
        "split_hash": experiment.data.split.hash,
        "config": composed.tree,
        "note": INTERVAL_NOTE,
    }
    write_metrics(report, out / "metrics.json", facts=facts)
    write_scores(report, out / "scores.parquet")
    write_figures(evaluation, experiment.masks(), experiment.data.images, out / "figures")
    console.print(f"Written to {out}: metrics.json, scores.parquet (a row per sample, attack and mask), figures/.")
    return 0


if __name__ == "__main__":
    run_program(main)
