"""Commands that need no network are done before anything heavy is imported."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from ldm_privacy.runs.lock import writing

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "lightning", "diffusers", "datasets", "wandb", "sklearn", "pandas", "matplotlib", "scipy")
TELL = """
import sys, runpy
{first}
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    print("imported:", *(name for name in {heavy} if name in sys.modules))
    sys.exit(end.code)
"""


def program(line, folder, *, heavy=HEAVY, first=""):
    """The finished process, what it imported, and the seconds of CPU that it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    command = [sys.executable, "-c", TELL.format(heavy=heavy, first=first), str(ROOT / line[0]), *line[1:]]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
    seconds = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    *lines, last = done.stdout.splitlines()
    return done, lines, last.split()[1:], seconds


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("train.py --help", 0, ""),
        ("evaluate.py --help", 0, ""),
        ("evaluate.py ckpt=missing.ckpt", 2, "error: missing.ckpt: does not exist; name a checkpoint file."),
        ("train.py --config nosuch.yaml", 2, "error: no config 'nosuch.yaml'."),
        ("train.py --config digits.yaml denoisr.x=1", 2, "error: config: unknown key 'denoisr'. Did you mean 'denoiser'?"),
        (
            "train.py --config digits.yaml trainer.max_epoch=3",
            2,
            "error: trainer: unknown key 'max_epoch'. Did you mean 'max_epochs'?",
        ),
        ("train.py --config digits.yaml trainer.max_epochs=x", 2, "error: trainer.max_epochs: 'x' should be a valid integer."),
        ("train.py --config digits.yaml audit.attacks.x=simma", 2, "error: audit.attacks.x.class: unknown attack 'simma'."),
        ("train.py --config digits.yaml plugins=[nowhere]", 2, "error: plugins: there is no module 'nowhere'"),
        ("train.py resum=runs/x", 2, "error: no config: name one, as in --config digits.yaml. Did you mean 'resume'?"),
        (
            "train.py --config digits.yaml trainer.gradient_clip=.inf",
            2,
            "error: trainer.gradient_clip: inf is no finite number",
        ),
        ("train.py --what", 2, "error: '--what': unknown option."),
        ("train.py resume=nowhere", 2, "error: resume: 'nowhere' is no run"),
    ],
)
def test_a_command_that_needs_no_network_imports_none(tmp_path, line, code, message):
    done, printed, imported, seconds = program(line.split(), tmp_path)
    assert done.returncode == code
    assert done.stderr.startswith(message)
    assert len(done.stderr.splitlines()) == (1 if message else 0)
    assert bool(printed) is not bool(message)
    assert imported == []
    assert seconds < 2
    assert list(tmp_path.iterdir()) == []


def test_what_other_processes_and_places_refuse_is_known_at_once(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("seed: 0\n")
    (tmp_path / "file").touch()
    (tmp_path / "file.ckpt").touch()
    (tmp_path / "mine.py").write_text(
        "from ldm_privacy.registry import SECTIONS\n@SECTIONS.register('mine')\ndef mine(): ...\n"
    )
    taken = f"error: run: process {os.getpid()} on "
    with writing(tmp_path / "run"):
        for line, message in (
            ("train.py resume=run", taken),
            ("train.py --config digits.yaml output_dir=file/runs", "error: output_dir: "),
            ("evaluate.py ckpt=file.ckpt out=file/evaluation", "error: out: "),
            ("evaluate.py ckpt=file.ckpt plugins=[nowhere]", "error: plugins: there is no module 'nowhere'"),
            ("train.py --config digits.yaml plugins=[mine] audit.attacks.x=simma", "error: audit.attacks.x.class: unknown"),
        ):
            done, _, imported, seconds = program(line.split(), tmp_path)
            assert done.returncode == 2
            assert done.stderr.startswith(message), done.stderr
            assert len(done.stderr.splitlines()) == 1
            assert imported == []
            assert seconds < 2


@pytest.mark.slow
def test_the_library_brings_no_trainer_and_an_evaluation_needs_none(run, tmp_path):
    """In one process: the rooms of the library, then an evaluation; nothing is drawn, which has tests of its own."""
    rooms = ("attacks", "metrics", "geometry", "audit", "models.identity", "watch.watcher", "recipes.loop")
    unwanted = ("lightning", "wandb", "sklearn", "pandas", "matplotlib", "jinja2", "pyarrow", "datasets")
    first = "\n".join(
        f"import ldm_privacy.{room}\nprint('{room}', *(name for name in {unwanted} if name in sys.modules))" for room in rooms
    )
    first += "\nimport ldm_privacy.recipes.publish\nldm_privacy.recipes.publish.evidence_figures = lambda *a, **b: {}"
    done, printed, imported, _ = program(
        ["evaluate.py", f"ckpt={run}/checkpoints/last.ckpt", f"out={tmp_path}/out"],
        tmp_path,
        heavy=("lightning", "wandb", "torchmetrics", "tensorboard"),
        first=first,
    )
    assert done.returncode == 0, done.stderr
    assert printed[: len(rooms)] == list(rooms)
    assert (tmp_path / "out" / "report.html").exists()
    assert imported == []
