"""Train an autoencoder and a latent diffusion model, and watch them memorize."""

from pathlib import Path

from callbacks.checkpoints import Interrupted
from callbacks.conclude import conclude
from callbacks.stages import Stages
from ldm_privacy.assemble import Experiment
from ldm_privacy.config import Composed, compose, finish, merge, parse_overrides, read_yaml
from ldm_privacy.config.command_line import allow_only, entry_names, parse, print_help
from ldm_privacy.data import Split
from ldm_privacy.errors import UserError
from ldm_privacy.plan import print_plan
from ldm_privacy.report.terminal import console, progress, run_program
from ldm_privacy.training.loggers import TidyLogger, wandb_logger
from ldm_privacy.training.run_folder import RunFolder

USAGE = """python train.py --config digits.yaml [key=value ...]     train; key=value changes the config
python train.py --config digits.yaml dry_run=true        print the plan and stop
python train.py resume=runs/digits                       go on after a stop"""

NEXT = """
{run}/metrics.csv          every curve
{run}/evaluation/          report.html: the verdict, every number and picture; scores, exposed images
{run}/figures/             memorization curves, samples, geometry
{run}/checkpoints/         last.ckpt, before-onset.ckpt
wandb leet {run}/wandb     the curves in the terminal
python evaluate.py ckpt={run}/checkpoints/last.ckpt
"""


def main(arguments: list[str]) -> int:
    line = parse(arguments, words=("resume", "dry_run"))
    if line.help:
        return print_help(USAGE, console)
    if "resume" in line.words:
        run = RunFolder.open(line.words["resume"], config=line.config)
        allow_only(line.overrides, ("trainer.", "audit.", "geometry."), "a resumed run keeps its stored config")
        composed = finish(merge(read_yaml(run.config), parse_overrides(line.overrides)))
        experiment = Experiment(composed.config, progress, split=Split.load(run.split) if run.split.exists() else None)
        if line.flag("dry_run"):
            return print_plan(experiment, composed.to_yaml(), console)
        experiment.check()
        run.write_config(composed.to_yaml())
        return fit(composed, run, experiment, resume=True)
    if line.config is None:
        raise UserError(f"no config: name one, as in --config digits.yaml. In configs/: {entry_names()}.")
    composed = compose(line.config, line.overrides)
    experiment = Experiment(composed.config, progress)
    if line.flag("dry_run"):
        return print_plan(experiment, composed.to_yaml(), console)
    experiment.check()
    run = RunFolder.create(Path(composed.config.output_dir), composed.config.name)
    console.print(f"This run is {run.path}.", highlight=False)
    run.write_config(composed.to_yaml())
    experiment.data.split.save(run.split)
    return fit(composed, run, experiment, resume=False)


def fit(composed: Composed, run: RunFolder, experiment: Experiment, *, resume: bool) -> int:
    """Both stages, then the table."""
    console.print(experiment.describe(), highlight=False)
    facts = {**composed.tree, "split_hash": experiment.data.split.hash}
    wandb = wandb_logger(run.path, config=facts, resume=resume, **vars(composed.config.wandb))
    stages = Stages(experiment, composed, run, TidyLogger(run.metrics), wandb)
    try:
        trained = stages.denoiser(stages.autoencoder())
    except Interrupted:
        console.print(f"Stopped; the checkpoint is stored. Go on with:\n  python train.py resume={run.path}")
        return 130
    conclude(experiment, composed, run, trained, wandb)
    console.print(NEXT.format(run=run.path), highlight=False, markup=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    run_program(main)
