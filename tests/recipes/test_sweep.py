"""`ldm-privacy sweep`: its files, what it refuses, and a whole one."""

import json
import os
import re
import signal
import sys
import threading
import time
from types import ModuleType

import pytest

from ldm_privacy.config.compose import CONFIG_DIR, stored_tree
from ldm_privacy.errors import UserError
from ldm_privacy.recipes import cli
from ldm_privacy.recipes.sweep import sweep, trial
from ldm_privacy.recipes.sweep import watch as sweep_watch
from ldm_privacy.recipes.sweep.trial import command_line, numbers_of
from ldm_privacy.runs.folder import RunFolder
from ldm_privacy.runs.lock import holder_of
from ldm_privacy.runs.series import SeriesFile
from ldm_privacy.sweeps.cells import Sweep, cell_file, lock_folder, read_sweep, run_folder
from ldm_privacy.sweeps.journal import Journal, Trial
from tests.recipes.test_lightness import ROOT, program
from tests.tiny import TINY

FILES = sorted((CONFIG_DIR / "sweeps").glob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
def test_every_cell_of_every_shipped_file_is_a_config(file):
    read = sweep.read_file(file)
    assert len(read.seeds) >= 3
    sweep._check_built(file, read, sweep._trees(file, read))
    assert f"ldm-privacy sweep configs/sweeps/{file.name}" in file.read_text()


def test_the_page_shows_a_file_and_commands_that_there_are():
    text = (ROOT / "docs" / "tutorials" / "sweeps.md").read_text()
    (shown,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    read = read_sweep(stored_tree(shown), "shown")
    assert next(iter(read.cells)) == "beta=0.0001+plain"
    assert [*read.cells][-1] == "long"
    assert read.baseline == "beta=0.001+plain"
    more = (ROOT / "docs" / "reference" / "commands.md").read_text()
    lines = re.findall(r"^ldm-privacy sweep (.*)$", text + more, re.MULTILINE)
    assert len(lines) >= 7
    for line in lines:
        words = sweep.parse(line.partition("  #")[0].split(), words=("out",), options=sweep.WORDS)
        assert words.config in ("sweeps/digits_beta", *(f"configs/sweeps/{file.name}" for file in FILES))
        sweep._workers(words)


@pytest.fixture
def tiny(tmp_path):
    """A function of what is changed: a sweep file of two cells and one seed."""

    def write(**changed):
        grid = {"map": {"key": "denoiser.channel_map", "values": ["none", "scaling_factor"]}}
        tree = {"config": "digits.yaml", "seeds": [0], "overrides": TINY, "grid": grid, **changed}
        path = tmp_path / "tiny.yaml"
        path.write_text(json.dumps(tree))  # which is YAML
        return path

    return write


LABELS = ["map=none", "map=scaling_factor"]


@pytest.mark.parametrize(
    ("changed", "words", "message"),
    [
        ({"gird": {}}, [], r"tiny\.yaml: unknown key 'gird'\. Did you mean 'grid'\?"),
        ({"grid": {}}, [], r"tiny\.yaml: grid: empty"),
        (
            {"cells": {"other": ["denoiser.channel_map=none"]}},
            [],
            r"tiny\.yaml: the cells 'map=none' and 'other' are the same; take one out\.$",
        ),
        (
            {"cells": {"other": []}},  # by its default
            [],
            r"tiny\.yaml: the cells 'map=scaling_factor' and 'other' are the same",
        ),
        (
            {"cells": {"x": ["trainer.max_epoch=3"]}},
            [],
            r"tiny\.yaml: cell 'x': trainer: unknown key 'max_epoch'\. Did you mean",
        ),
        ({"cells": {"x": ["denoiser.network.dropout=a"]}}, [], r"tiny\.yaml: cell 'x': denoiser\.network\.dropout: 'a' should"),
        ({"cells": {"x": ["data.seed=0"]}}, [], r"tiny\.yaml: cell 'x': data\.seed: a trial's seed decides its split"),
        ({"cells": {"x": ["data={seed: 0}"]}}, [], r"cell 'x': data\.seed: a trial's seed decides its split"),
        (
            {"cells": {"x": ["data={index_file: a.npz, num_members: null, num_heldout: null}"]}, "seeds": [0, 1]},
            [],
            r"cell 'x': data\.index_file: all that a\.npz names is one split for all seeds",
        ),
        (
            {
                "cells": {"x": ["data={source: {class: imagenet, path: a}, num_members: null, num_heldout: null}"]},
                "seeds": [0, 1],
            },
            [],
            r"cell 'x': data\.source: all that it has on its sides is one split for all seeds",
        ),
        (
            {"cells": {"x": ["data.num_members=41"]}},
            [],
            r"cell 'x' has data\.num_members=41, not 40 as 'map=none': cells are compared on the same; make them equal\.$",
        ),
        (
            {"cells": {str(n): [f"watch.q={{class: quality, num_steps: {n}}}"] for n in (2, 3)}},
            [],
            r"cell '3' has watch\.quality\.num_steps=3, not 2 as '2'",
        ),
        ({"cells": {"x": ["audit.stop.at=fail"]}}, [], r"cell 'x': audit\.stop\.at: there is no limit to act upon"),
        ({"cells": {"x": ["audit.forecast=[nowhere]"]}}, [], r"cell 'x': audit\.forecast: 'nowhere' is no run"),
        (
            {"cells": {"x": ["denoiser.privacy.noise_multiplier=1.0", "trainer.precision=bf16-mixed"]}},
            [],
            r"cell 'x': (trainer\.precision: bf16-mixed doesn't go with|denoiser\.privacy: it needs Opacus)",
        ),
        ({"config": "nosuch.yaml"}, [], r"tiny\.yaml: cell 'map=none': no config 'nosuch\.yaml'"),
        ({"baseline": "map=whitening"}, [], r"tiny\.yaml: baseline: 'map=whitening' is no cell"),
        ({}, ["--workers", "0"], r"^--workers: '0' should be a whole number, 1 or more\.$"),
        ({}, ["--workers"], r"^--workers: give it a value\. See --help\.$"),
        ({}, ["--worker=2"], r"^'--worker=2': unknown option\. Did you mean '--workers'\?"),
        ({}, ["trainer.max_epochs=x"], r"cell 'map=none': trainer\.max_epochs: 'x' should be a valid integer"),
        ({}, ["--status"], r"out: no sweep has begun there"),
        ({}, ["--slurm", "partion=gpu"], r"^--slurm: unknown 'partion'\. Did you mean 'partition'\?"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_made(tiny, tmp_path, changed, words, message):
    with pytest.raises(UserError, match=message):
        cli.main(["sweep", str(tiny(**changed)), f"out={tmp_path}/out", *words])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("sweep --help", 0, ""),
        ("sweep", 2, "error: no sweep: name a file, as in configs/sweeps/digits_beta.yaml."),
        ("sweep digits_beat.yaml", 2, "error: no sweep 'digits_beat.yaml'. Did you mean 'digits_beta.yaml'?"),
        ("sweep tiny.yaml --workers 0", 2, "error: --workers: '0' should be"),
        ("sweep tiny.yaml", 2, "error: tiny.yaml: cell 'x': trainer: unknown key 'max_epoch'"),
    ],
)
def test_mistakes_are_told_at_once(tiny, tmp_path, line, code, message):
    file = tiny(cells={"x": ["trainer.max_epoch=3"]})
    done, printed, imported, seconds = program(["tests/recipes/console.py", *line.split()], tmp_path)
    assert done.returncode == code
    assert done.stderr.startswith(message)
    assert len(done.stderr.splitlines()) == (1 if message else 0)
    assert bool(printed) is not bool(message)
    assert imported == []
    assert seconds < 2
    assert list(tmp_path.iterdir()) == [file]


@pytest.fixture
def begun(tiny, tmp_path, monkeypatch):
    """A sweep whose workers do nothing: its folder, and a function of words that goes on with it."""
    monkeypatch.setattr(sweep, "run_workers", lambda read, folder, module, workers: 0)
    folder = tmp_path / "out"

    def go_on(*words, **changed):
        return cli.main(["sweep", str(tiny(**changed)), f"out={folder}", *words])

    assert go_on() == 0
    return folder, go_on


def test_each_trial_waits_once_however_often_it_is_asked_for(begun):
    folder, go_on = begun
    assert go_on() == 0
    assert cli.main(["sweep", str(folder)]) == 0  # by its folder
    assert [(trial.cell, trial.seed, trial.state) for trial in Journal(folder).trials()] == [
        ("map=none", 0, "waiting"),
        ("map=scaling_factor", 0, "waiting"),
    ]
    assert go_on(seeds=[0, 1], cells={"v": ["denoiser.prediction_type=v_prediction"]}) == 0
    assert len(Journal(folder).trials()) == 6


def test_another_sweep_is_refused_and_what_is_there_stays(begun):
    folder, go_on = begun
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(
        UserError, match=r"journal\.log: is the journal of another sweep: its cell 'map=none' is trained otherwise"
    ):
        go_on("trainer.max_epochs=5")
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".lock")}
    assert {path: content for path, content in before.items() if not path.name.startswith(".lock")} == after


def test_a_trial_begins_with_its_cells_config_and_goes_on_with_its_run(begun):
    folder, _ = begun
    taken = Trial(0, "map=none", 0, "taken")
    line = command_line(folder, taken, "tiny")
    assert line[:2] == ["--config", str(cell_file(folder, "map=none"))]
    run = RunFolder(run_folder(folder, "map=none", 0))
    run.path.mkdir(parents=True)
    assert command_line(folder, taken, "tiny") == line
    assert not run.path.exists()  # or the run would get another name
    run.path.mkdir()
    run.write_config("seed: 0\n")
    assert command_line(folder, taken, "tiny") == [f"resume={run.path}"]


def test_a_trial_ends_with_what_its_verdict_rests_on_and_the_quality_of_its_generations(tmp_path):
    run, name = RunFolder(tmp_path), "memorization/{}/all/auroc"
    series = {name.format("sima"): 0.5, name.format("sima_calibrated"): 0.6, "quality/kid_random_heldout": 0.1}
    file = SeriesFile(run.metrics)
    file.write("denoiser", 0, {name.format("sima"): 0.4})
    file.write("denoiser", 4, series)
    assert numbers_of(run) == {"auroc": 0.5, "quality": 0.1}
    run.evaluation.mkdir()
    (run.evaluation / "metrics.json").write_text('{"verdict": {"insider": "sima_calibrated/all"}}')
    file.write("denoiser", 4, {"quality/kid_heldout": 0.2})
    assert numbers_of(run) == {"auroc": 0.6, "quality": 0.2}
    (run.evaluation / "metrics.json").unlink()
    run.metrics.unlink()
    with pytest.raises(UserError, match=r"metrics\.csv: no audit has left an AUROC in it; audit the training"):
        numbers_of(run)


def test_a_trial_trains_and_evaluates_and_tells_the_journal(begun, monkeypatch):
    folder, _ = begun
    run, calls = RunFolder(run_folder(folder, "map=none", 0)), []

    def train(line):
        calls.append(line)
        run.path.mkdir(parents=True)
        run.write_config("plugins: [mine]\n")
        SeriesFile(run.metrics).write("denoiser", 4, {"memorization/sima/all/auroc": 0.75})
        return 0

    def evaluate(line):
        calls.append(line)
        run.evaluation.mkdir()
        (run.evaluation / "metrics.json").write_text('{"verdict": {"insider": "sima/all"}}')
        return 0

    monkeypatch.setitem(cli.COMMANDS, "train", train)
    monkeypatch.setitem(cli.COMMANDS, "evaluate", evaluate)
    journal = Journal(folder)
    journal.take()
    assert trial.main([str(folder), "map=none", "0", str(os.getppid())]) == 0
    assert calls[0][-1] == 'wandb.group="tiny"'
    assert calls[1:] == [[f"ckpt={run.last}", 'plugins=["mine"]']]
    assert [(each.state, each.numbers) for each in journal.trials()] == [("done", {"auroc": 0.75}), ("waiting", {})]


def test_a_training_that_stops_leaves_its_trial_to_the_next_worker(begun, monkeypatch):
    folder, _ = begun
    monkeypatch.setitem(cli.COMMANDS, "train", lambda line: 130)
    journal = Journal(folder)
    journal.take()
    assert trial.main([str(folder), "map=none", "0", str(os.getppid())]) == 130
    assert journal.trials()[0].state == "taken"


def test_workers_share_the_machine(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,7")
    shares = [sweep_watch.share_of_machine(number, 2) for number in range(2)]
    assert [share["OMP_NUM_THREADS"] for share in shares] == ["4", "4"]
    assert [share["CUDA_VISIBLE_DEVICES"] for share in shares] == ["4,7", "5"]
    shares = [sweep_watch.share_of_machine(number, 4) for number in range(4)]
    assert [share["CUDA_VISIBLE_DEVICES"] for share in shares] == ["4", "5", "7", "4"]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert sweep_watch.share_of_machine(0, 1)["OMP_NUM_THREADS"] == "1"


@pytest.fixture
def frontiers(monkeypatch):
    """The frontiers that were written: cells with their overrides, whether they are the baseline, their runs."""
    written = []

    def write_frontier(name, cells, folder, *, shown=False):
        written.append({label: (list(cell.overrides), cell.baseline, list(cell.runs)) for label, cell in cells.items()})
        raise UserError("too little is done yet.")

    module = ModuleType("ldm_privacy.recipes.frontier.frontier")
    module.write_frontier = write_frontier
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return written


def test_the_status_tells_each_trial_and_the_frontier(begun, frontiers, capsys):
    folder, _ = begun
    journal = Journal(folder)
    journal.fail(journal.take(), "audit.timesteps: 1000 is outside the noise schedule")
    journal.finish(journal.take(), {"auroc": 0.75, "quality": 0.125})
    assert cli.main(["sweep", str(folder), "--status"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "1 done, 1 failed" in printed
    assert "map=scaling_factor 0 done 0.75 0.125" in printed
    assert "map=none 0 failed audit.timesteps: 1000 is outside the noise schedule" in printed
    assert printed.endswith("No frontier yet: too little is done yet.")
    runs = [run_folder(folder, "map=scaling_factor", 0)]
    assert frontiers == [
        {
            "map=none": (['denoiser.channel_map="none"'], True, []),
            "map=scaling_factor": (['denoiser.channel_map="scaling_factor"'], False, runs),
        }
    ]


@pytest.fixture
def quick(tmp_path, monkeypatch):
    """A function of cells: the sweep of them, enqueued, and a function of workers that runs it with trials of no time."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def make(*cells):
        read = Sweep("quick", "digits.yaml", (0,), (), dict.fromkeys(cells, ()), cells[0])
        Journal(tmp_path).enqueue("quick", dict.fromkeys(cells, "hash"), [0])
        return lambda workers: sweep_watch.run_workers(read, tmp_path, "tests.sweeps.quick_trial", workers)

    return make


def test_workers_are_processes_and_what_ended_is_told(quick, tmp_path, frontiers, capsys):
    run = quick("right", "wrong", "other")
    assert run(2) == 1
    assert [each.state for each in Journal(tmp_path).trials()] == ["done", "failed", "done"]
    printed = capsys.readouterr().out
    assert "right, seed 0 done: auroc 0.5" in printed
    assert "wrong, seed 0 failed: data.num_members: 5000 is too many" in printed
    assert "1 failed; " in printed
    assert frontiers[-1]["wrong"] == ([], False, [])
    assert run(1) == 1  # nothing is left to do


@pytest.mark.slow
def test_a_stop_reaches_workers_and_trials_and_leaves_them_to_the_next(quick, tmp_path, frontiers, capsys):
    run = quick("right", "long")

    def stop():
        printed = lock_folder(tmp_path, "long", 0) / "output.log"
        while not printed.exists() or "waiting" not in printed.read_text():
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=stop, daemon=True).start()
    assert run(2) == 130
    assert [each.state for each in Journal(tmp_path).trials()] == ["done", "taken"]
    assert holder_of(lock_folder(tmp_path, "long", 0)) is None
    assert "Stopped. Go on with:" in capsys.readouterr().out


@pytest.mark.slow
def test_a_sweep_trains_and_evaluates_every_cell_and_names_what_failed(tiny, tmp_path, frontiers, capsys):
    """One cell can't be trained, which shows itself only when it is set up."""
    folder = tmp_path / "out"
    # Two processes of two trials each; a third of the time is theirs to import.
    file = tiny(cells={"wrong": ["audit.timesteps=[5000]"]}, grid={"plain": {"plain": []}})
    assert cli.main(["sweep", str(file), f"out={folder}", "--workers", "2"]) == 1
    plain, wrong = Journal(folder).trials()[1], Journal(folder).trials()[0]
    if plain.cell != "plain":
        plain, wrong = wrong, plain
    assert (plain.state, wrong.state) == ("done", "failed")
    assert "5000" in wrong.why
    assert wrong.why in (lock_folder(folder, "wrong", 0) / "output.log").read_text()
    run = run_folder(folder, "plain", 0)
    assert plain.numbers["auroc"] == numbers_of(RunFolder(run))["auroc"]
    assert "group: tiny" in (run / "config.yaml").read_text()
    assert frontiers[-1]["plain"] == ([], True, [run])
    printed = capsys.readouterr().out
    assert "1 failed; " in printed
    before = (run / "metrics.csv").read_bytes()
    assert cli.main(["sweep", str(folder)]) == 1  # nothing is run again
    assert (run / "metrics.csv").read_bytes() == before
