"""What a wrong input costs: `python -m benchmarks.reliability mistakes [--jobs 2] [--only WORD]`.

Every input of `benchmarks.wrong_inputs` is given to `train.py` or `evaluate.py`. The answer is to be one line, without a
traceback, with the exit code 2, after at most LIMIT seconds of CPU where nothing has to be loaded to know it; and no file is to
be made. Exit code 1 where one isn't so.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from threading import Timer

from benchmarks.reliability import ENVIRONMENT, ROOT, Table, run
from benchmarks.wrong_files import in_training
from benchmarks.wrong_inputs import AT_ONCE, LOADED, Mistake

LIMIT = 3.0
"""Seconds of CPU for a mistake that nothing has to be loaded to know."""
TINY = [
    *("--config", "digits.yaml", "output_dir=runs", "autoencoder.max_epochs=1", "trainer.max_epochs=2", "audit.attacks=[sima]"),
    *("audit.masks=[all]", "audit.keep_fractions=[]", "geometry.distortion_rank=0", "watch={samples: null, generations: null}"),
    *("denoiser.network.block_out_channels=[16,16]", "audit.num_bootstrap=50", "trainer.figures=false", "wandb.mode=disabled"),
]


def one_mistake(folder: Path, mistake: Mistake, run_folder: Path) -> list[str]:
    """Make a wrong input and give it to the program; a row of the table."""
    folder.mkdir()
    if "my runs" in mistake.command:
        shutil.copytree(run_folder, folder / "my runs" / "digits")
    command = [sys.executable, str(ROOT / f"{mistake.command.split()[0]}.py"), *shlex.split(mistake.command)[1:]]
    with mistake.make(folder) or nullcontext():
        before = set(folder.rglob("*"))
        process = subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, text=True, stdout=-1, stderr=subprocess.STDOUT)
        timer = Timer(100 * LIMIT, process.kill)
        timer.start()
        said = process.stdout.read().splitlines()
        timer.cancel()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        made = {
            path.name
            for path in set(folder.rglob("*")) - before
            if mistake.make is not in_training and path.name[:5] != ".lock"
        }
    seconds = usage.ru_utime + usage.ru_stime
    wrong = [
        *([f"{len(said)} lines"] if len(said) != 1 else []),
        *([f"exit code {process.returncode}"] if process.returncode != 2 else []),
        *([f"'{mistake.expected}' is not in it"] if not re.search(mistake.expected, " ".join(said)) else []),
        *(["too long"] if seconds > LIMIT and mistake in AT_ONCE else []),
        *([f"made {', '.join(sorted(made))}"] if made else []),
    ]
    print(*said[-3:], sep="\n", file=sys.stderr) if wrong else None
    answer = (said or [""])[-1].replace(f"{folder.resolve()}", "FOLDER").replace("|", "\\|")
    return [mistake.name, f"`{mistake.command}`", answer, f"{seconds:.1f} s", "; ".join(wrong) or "as it should be"]


def mistakes(*, jobs: int, only: str) -> bool:
    """The table of mistakes; whether every answer is as it should be."""
    chosen = [mistake for mistake in (*AT_ONCE, *LOADED) if only in mistake.name]
    with tempfile.TemporaryDirectory() as temporary, ThreadPoolExecutor(jobs) as pool:
        folder = Path(temporary)
        (folder / "run").mkdir()
        if run(folder / "run", TINY).code:
            raise SystemExit((folder / "run" / "output.txt").read_text())
        table = Table("mistake", "command", "answer", "CPU", "is")
        folders = [folder / f"{number:02}" for number in range(len(chosen))]
        for row in pool.map(one_mistake, folders, chosen, [folder / "run" / "runs" / "digits"] * len(chosen)):
            table.add(*row)
    good = sum(row[-1] == "as it should be" for row in table.rows)
    print(f"\n{good} of {len(chosen)} answers are as they should be.")
    return good == len(chosen)
