"""The examples run as they stand, shortened, and show what they promise: a curve that rises."""

import os
import runpy
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest

from tests.pages import text_of

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """An empty working directory, in which an example must leave nothing."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    yield here
    assert not list(here.iterdir())


def run(monkeypatch, name, *arguments):
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


def rises(auroc):
    assert 0.35 < auroc[0] < 0.65
    assert auroc[-1] > 0.75
    assert sum(late > early for early, late in pairwise(auroc)) >= len(auroc) - 2, auroc


@pytest.mark.slow
def test_a_lightning_module_of_ones_own(empty, tmp_path, monkeypatch, capsys):
    run(monkeypatch, "own_lightning_module.py", "--max-epochs", "150", "--folder", str(tmp_path / "out"))
    table = [line.split() for line in capsys.readouterr().out.splitlines() if line.split() and line.split()[0].isdigit()]
    assert [row[0] for row in table] == ["0", "50", "100", "150"]
    rises([float(row[1]) for row in table])
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["metrics.csv"]


@pytest.mark.slow
def test_two_processes_share_the_samples_of_a_look(empty, tmp_path, monkeypatch):
    """Whoever builds an audit before the processes are there has all samples in each: intervals must not count them twice."""
    run(monkeypatch, "own_lightning_module.py", "--max-epochs", "1", "--folder", str(tmp_path / "one"))
    environment = {key: value for key, value in os.environ.items() if key not in ("LOCAL_RANK", "RANK", "WORLD_SIZE")}
    subprocess.run(
        [sys.executable, str(Path(__file__).parent / "two_processes.py"), "--max-epochs", "1", "--folder", tmp_path / "two"],
        check=True,
        capture_output=True,
        env={**environment, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(EXAMPLES.parent)},
    )
    one, two = (pd.read_csv(tmp_path / name / "metrics.csv").query("step == 0").iloc[0] for name in ("one", "two"))
    # 64 + 64 samples that tell nothing have a width of .20; counted twice, of .14.
    assert one["memorization/sima/all/auroc_upper"] - one["memorization/sima/all/auroc_lower"] > 0.17
    for name in one.index[one.notna()]:
        assert two[name] == pytest.approx(one[name], abs=1e-6), name


@pytest.mark.slow  # .ci/run runs the examples themselves
def test_a_plain_loop(empty, tmp_path, monkeypatch, capsys):
    run(monkeypatch, "plain_loop.py", "--max-steps", "300", "--folder", str(tmp_path / "out"))
    lines = capsys.readouterr().out.splitlines()
    rises([float(line.split("SimA ")[1].split(",")[0]) for line in lines if line.startswith("step")])
    assert lines[-1].startswith(str(tmp_path / "out" / "report.html"))
    page = text_of((tmp_path / "out" / "report.html").read_text())
    assert "Step 300; audited on " in page
    assert (tmp_path / "out" / "figures" / "memorization.png").exists()


@pytest.mark.slow
def test_a_lora_of_accelerate_and_peft(empty, tmp_path, monkeypatch, capsys):
    run(monkeypatch, "accelerate_lora.py", "--max-steps", "120", "--base-steps", "120", "--folder", str(tmp_path / "out"))
    lines = capsys.readouterr().out.splitlines()
    ratio = [float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("step")]
    assert ratio[-1] > 0.7
    assert lines[-1] == "Without the watch the loop ends with the same weights, to the last bit."
    page = text_of((tmp_path / "out" / "report.html").read_text())
    assert "UNet2DConditionModel with its adapter off" in page


@pytest.mark.slow
def test_the_notebook(empty):
    path = EXAMPLES / "notebook.py"
    source = path.read_text()
    assert source.count("range(601)") == 1
    names = {"__name__": "notebook"}
    exec(compile(source.replace("range(601)", "range(301)"), path, "exec"), names)
    for mask in ("all", "top60", "random60"):
        rises([row[mask] for row in names["curve"].values()])
