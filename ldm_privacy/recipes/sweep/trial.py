"""One trial of a sweep as a program: a training with its evaluation, or going on with it.

python -m ldm_privacy.recipes.sweep.trial FOLDER CELL SEED WORKER
"""

import json
import os
import shutil
import signal
import sys
from pathlib import Path

from ldm_privacy.config.compose import read_yaml
from ldm_privacy.errors import UserError
from ldm_privacy.recipes.terminal import in_one_line, is_first, quiet_libraries
from ldm_privacy.runs.folder import RunFolder
from ldm_privacy.runs.series import SeriesFile
from ldm_privacy.sweeps.cells import cell_file, run_folder
from ldm_privacy.sweeps.journal import Journal, Trial
from ldm_privacy.sweeps.trial import STOPPED, run_trial, stop_with_parent
from ldm_privacy.watch.quality_report import primary_of

LINE = "LDM_PRIVACY_TRIAL"
"""In the environment: the command line of the training, for the processes that it starts beside itself."""


def main(arguments: list[str]) -> int:
    """Run the trial that the arguments name; returns the exit code."""
    folder, cell, seed, worker = Path(arguments[0]), arguments[1], int(arguments[2]), int(arguments[3])
    quiet_libraries()
    if not is_first():  # one of several processes of a training, whose first one holds the trial
        return _call("train", json.loads(os.environ[LINE]))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    stop_with_parent(worker)

    def train(trial: Trial) -> dict[str, float]:
        run = RunFolder(run_folder(folder, cell, seed))
        line = command_line(folder, trial, Journal(folder).name)
        os.environ[LINE] = json.dumps(line)
        print(f"== process {os.getpid()}: train {' '.join(line)}", flush=True)
        if _call("train", line) == STOPPED:
            raise KeyboardInterrupt
        if not (run.evaluation / "metrics.json").is_file():  # trainer.figures=false leaves it out
            plugins = read_yaml(run.config).get("plugins")
            _call("evaluate", [f"ckpt={run.last}", *([f"plugins={json.dumps(plugins)}"] if plugins else [])])
        return numbers_of(run)

    code = run_trial(folder, cell, seed, train)
    sys.stdout.flush()
    return code


def command_line(folder: Path, trial: Trial, group: str) -> list[str]:
    """What `train` is given: the trial's config, or its run where that has begun."""
    run = RunFolder(run_folder(folder, trial.cell, trial.seed))
    if run.config.is_file():
        return [f"resume={run.path}"]
    if run.path.exists():  # killed before it was a run: there is nothing in it
        shutil.rmtree(run.path)
    own = [f"name={run.path.name}", f"seed={trial.seed}", f"output_dir={json.dumps(str(run.path.parent))}"]
    return ["--config", str(cell_file(folder, trial.cell)), *own, f"wandb.group={json.dumps(group)}"]


def numbers_of(run: RunFolder) -> dict[str, float]:
    """What a trial ended with: `auroc` of what its verdict rests on (its first unmasked attack's without an evaluation), and
    `quality`, the distance of its generations to held-out images, where it was measured."""
    curves = SeriesFile(run.metrics).read("denoiser")
    newest = {name: value for (_, name), value in curves.items()}
    names = [name for name in newest if name.endswith("/all/auroc")]
    if (metrics := run.evaluation / "metrics.json").is_file():
        names.insert(0, f"memorization/{json.loads(metrics.read_text())['verdict']['insider']}/auroc")
    if (auroc := next((newest[name] for name in names if name in newest), None)) is None:
        raise UserError(f"{run.metrics}: no audit has left an AUROC in it; audit the training (audit.every_n_epochs).")
    distances = {name.removeprefix("quality/").removesuffix("_heldout") for name in newest if name.endswith("_heldout")}
    quality = f"quality/{primary_of(distances)}_heldout"
    return {"auroc": auroc} | ({"quality": newest[quality]} if quality in newest else {})


def _call(name: str, line: list[str]) -> int:
    """A command, whose error is printed in one line and raised as a UserError."""
    from ldm_privacy.recipes.cli import COMMANDS

    try:
        return COMMANDS[name](line)
    except Exception as error:
        if (words := in_one_line(error)) is None:
            raise
        print(f"error: {words}", file=sys.stderr, flush=True)
        raise UserError(words) from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
