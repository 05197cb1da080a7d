"""Train an autoencoder and a latent diffusion model, and watch them memorize."""

from callbacks.autoencoder_stage import train_autoencoder
from callbacks.begin import begin
from callbacks.checkpoints import Interrupted
from callbacks.conclude import conclude
from callbacks.denoiser_stage import train_denoiser
from callbacks.runner import Runner
from ldm_privacy.assemble import Experiment
from ldm_privacy.check import check_training
from ldm_privacy.config import Composed, compose, finish, merge, parse_overrides, read_yaml
from ldm_privacy.config.command_line import allow_only, entry_names, parse, print_help
from ldm_privacy.errors import UserError
from ldm_privacy.plan import print_plan
from ldm_privacy.report.terminal import console, progress, run_program
from ldm_privacy.training.loggers import TidyLogger, wandb_logger
from ldm_privacy.training.processes import follow, gather, is_main, together
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
    resumed = None
    if "resume" in line.words:
        resumed = RunFolder.open(line.words["resume"], config=line.config)
        allow_only(line.overrides, ("trainer.", "audit.", "geometry."), "a resumed run keeps its stored config")
        composed = finish(merge(read_yaml(resumed.config), parse_overrides(line.overrides)))
    elif line.config is None:
        raise UserError(f"no config: name one, as in --config digits.yaml. In configs/: {entry_names()}.")
    else:
        composed = compose(line.config, line.overrides)
    experiment = Experiment(composed.config, progress)
    if line.flag("dry_run"):
        return print_plan(experiment, composed.to_yaml(), console)
    check_training(experiment)
    run = begin(experiment, composed, resumed) if is_main() else None
    trainer = composed.config.trainer
    with together(trainer.accelerator, trainer.devices, trainer.num_nodes):
        return fit(composed, gather(run)[0], experiment, resume=resumed is not None)


def fit(composed: Composed, run: RunFolder, experiment: Experiment, *, resume: bool) -> int:
    """Both stages, then the table."""
    console.print(experiment.describe(), highlight=False)
    facts = {**composed.tree, "split_hash": experiment.data.split.hash}
    wandb = wandb_logger(run.path, config=facts, resume=resume, **vars(composed.config.wandb)) if is_main() else None
    runner = Runner(experiment, composed, run, TidyLogger(run.metrics) if is_main() else None, wandb)
    try:
        trained = train_denoiser(runner, train_autoencoder(runner))
    except Interrupted:
        console.print(f"Stopped; the checkpoint is stored. Go on with:\n  python train.py resume={run.path}")
        return 130 if is_main() else 0
    conclude(experiment, composed, run, trained, wandb)
    console.print(NEXT.format(run=run.path), highlight=False, markup=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    console.quiet = not is_main()
    run_program(main if is_main() else follow(main))
