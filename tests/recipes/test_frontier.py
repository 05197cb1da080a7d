"""`ldm-privacy frontier`: from run folders to the page, the file and the table."""

import csv
import json
import os
import re
import shutil

import pytest
import torch
import yaml

from ldm_privacy.audit.kept import KeptScores
from ldm_privacy.data.split import Split
from ldm_privacy.errors import UserError
from ldm_privacy.evidence.cell import Cell
from ldm_privacy.recipes import cli
from ldm_privacy.recipes.frontier import frontier as frontier_recipe
from ldm_privacy.recipes.frontier import runs as frontier_runs
from ldm_privacy.recipes.frontier import store as frontier_store
from ldm_privacy.recipes.frontier.frontier import read_frontier, write_frontier
from ldm_privacy.recipes.frontier.runs import Run, check_compared, training_of
from ldm_privacy.recipes.frontier.store import KnownStrongest
from ldm_privacy.runs.history import Provenance, ScoreHistory
from ldm_privacy.runs.lock import holder_of
from ldm_privacy.runs.series import SeriesFile
from ldm_privacy.sweeps.journal import Journal
from ldm_privacy.types import AuditKey, Intervals
from tests.pages import text_of

KEY, CALIBRATED = AuditKey("sima", "all"), AuditKey("sima_history", "all")
CURVE = {0: (0.0, 0.9), 10: (0.5, 0.2), 20: (1.2, 0.05)}
"""Epoch -> strength, quality."""
NAME = "quality/kid_random_heldout"


def look(file, epoch, value, name=NAME):
    file.write("denoiser", epoch, {name: value, f"{name}_lower": value - 0.01, f"{name}_upper": value + 0.01})


def make_run(folder, *, seed=0, curve=CURVE, has_ended=True, split_seed=None, looks=True, **config):
    """What a training leaves behind, of 40 + 40 samples."""
    folder.mkdir(parents=True)
    tree = {"name": folder.name, "seed": seed, "output_dir": str(folder.parent), "data": {"group_column": None}, **config}
    (folder / "config.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    split_seed = seed if split_seed is None else split_seed
    drawn = torch.randperm(200, generator=torch.Generator().manual_seed(split_seed))
    split = Split(drawn[:40], drawn[40:80], drawn[80:], 200)
    split.save(folder / "split.npz")
    index, generator = split.audited_index, torch.Generator().manual_seed(seed)
    history = ScoreHistory(folder / "scores", Provenance(split.hash, seed, {"sima": "SimA"}, {"all": "KeepAll"}))
    for epoch, (strength, value) in curve.items():
        score = torch.randn(1, 2, 80, generator=generator) + strength * split.is_member(index)
        timesteps = {"sima": [10, 100], "sima_history": []}
        made = {CALIBRATED: torch.randn(2, 1, 80, generator=generator)}
        history.write(epoch, KeptScores(index, timesteps, {KEY: score}, {KEY: score[0, 0]}, made, {CALIBRATED: 2}))
        if looks:
            look(SeriesFile(folder / "metrics.csv"), epoch, value)
    if has_ended:
        (folder / "evaluation").mkdir()
        (folder / "evaluation" / "metrics.json").write_text(json.dumps({"epoch": max(curve), "watched": {}}))
    return folder


def cell(label, *runs, baseline=False):
    return Cell(label, (f"denoiser.channel_map={label}",), baseline, runs)


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def cells(tmp_path):
    weaker = {epoch: (0.3 * strength, value) for epoch, (strength, value) in CURVE.items()}
    plain = [make_run(tmp_path / f"plain-{seed}", seed=seed) for seed in range(3)]
    other = [make_run(tmp_path / f"other-{seed}", seed=seed, curve=weaker) for seed in range(3)]
    return {"plain": cell("plain", *plain, baseline=True), "other": cell("other", *other)}


def test_the_file_holds_every_audit_every_difference_and_every_mean(cells, tmp_path):
    page, table = write_frontier("a sweep", cells, tmp_path / "out")
    found = read_frontier(cells, tmp_path / "out")
    read = {(row["cell"], row["seed"], row["epoch"], row["series"]): row for row in rows(table)}
    assert len(read) == len(rows(table)), "no row stands twice"
    for label, trainings in found.trainings.items():
        for seed, training in trainings.items():
            for point in training.points:
                for series, estimate in {"auroc": point.attack.auroc, "kid_random_heldout": point.quality}.items():
                    row = read[label, str(seed), str(point.epoch), series]
                    assert [float(row[each]) for each in ("value", "lower", "upper")] == list(vars(estimate).values())
    gap = found.compared["other"].auroc
    assert float(read["other", "", "", "auroc_at_equal_quality"]["upper"]) == gap.mean.upper
    assert float(read["other", "2", "", "auroc_at_equal_quality"]["value"]) == gap.by_seed[2].value
    assert float(read["plain", "", "", "auroc"]["value"]) == found.auroc["plain"].mean.value
    text = page.read_text()
    assert "What privacy costs: a sweep" in text
    assert "<script" not in text
    assert "denoiser.channel_map=other" in text


def test_an_audit_is_read_once_and_again_only_where_its_scores_changed(cells, tmp_path, monkeypatch):
    first = read_frontier(cells, tmp_path / "out")
    asked, original = [], frontier_runs.strongest
    monkeypatch.setattr(frontier_runs, "strongest", lambda *args, **options: asked.append(1) or original(*args, **options))
    again = read_frontier(cells, tmp_path / "out")
    assert not asked
    assert again.compared == first.compared
    run = cells["other"].runs[0]
    shutil.rmtree(run)
    make_run(run, seed=0, curve={**CURVE, 20: (3.0, 0.05)})
    changed = read_frontier(cells, tmp_path / "out")
    assert len(asked) == 3
    assert changed.auroc["other"].by_seed[0].value > first.auroc["other"].by_seed[0].value


def test_a_part_of_the_trials_is_enough(cells, tmp_path):
    runs = [tmp_path / f"third-{seed}" for seed in range(4)]
    make_run(runs[0], seed=0, has_ended=False, curve={0: (0.0, 0.9), 10: (0.5, 0.2)})
    make_run(runs[1], seed=1, looks=False)
    make_run(runs[2], seed=2, has_ended=False, curve={})
    SeriesFile(runs[0] / "metrics.csv").write("denoiser", 10, {"quality/kid_heldout": 0.1})  # its bounds are still to come
    (runs[0] / "evaluation").mkdir()
    (runs[0] / "evaluation" / "metrics.json").write_text('{"epoch": 2')
    found = read_frontier({**cells, "third": cell("third", *runs)}, tmp_path / "out")
    assert [point.epoch for point in found.trainings["third"][0].points] == [0, 10]
    assert not found.trainings["third"][0].has_ended
    assert "third" not in found.auroc
    assert list(found.left_out) == [
        "third: 1 of 4 runs have not begun",
        f"{runs[1]}: no audit with kid_random_heldout",
        f"{runs[2]}: no audit yet",
    ]
    page, _ = write_frontier("x", {**cells, "third": cell("third", *runs)}, tmp_path / "out")
    assert "6 trainings have ended, 1 is under way" in text_of(page.read_text())


def test_the_quality_at_the_end_may_be_that_of_the_evaluation(tmp_path):
    run = make_run(tmp_path / "run", curve=CURVE, looks=False)
    watched = {"quality": {"kid_random_heldout": [0.07, 0.06, 0.08], "primary": "kid_random"}}
    (run / "evaluation" / "metrics.json").write_text(json.dumps({"epoch": 20, "watched": watched}))
    found = read_frontier({"plain": cell("plain", run)}, tmp_path / "out")
    (point,) = found.trainings["plain"][0].points
    assert (point.epoch, point.quality.value, point.quality.upper) == (20, 0.07, 0.08)


def test_a_feature_network_is_preferred_where_all_trainings_have_one(cells, tmp_path):
    every = [run for each in cells.values() for run in each.runs]
    for run in every[:-1]:
        look(SeriesFile(run / "metrics.csv"), 20, 0.4, "quality/kid_heldout")
    assert read_frontier(cells, tmp_path / "out").quality == "kid_random_heldout"
    look(SeriesFile(every[-1] / "metrics.csv"), 20, 0.4, "quality/kid_heldout")
    assert read_frontier(cells, tmp_path / "out").quality == "kid_heldout"


def test_runs_in_groups_wait_for_their_evaluation(tmp_path):
    run = make_run(tmp_path / "run", data={"group_column": "patient"}, has_ended=False)
    found = training_of(Run.open(run), "kid_random_heldout", KnownStrongest(tmp_path / "out", Intervals()), Intervals())
    assert found == f"{run}: its samples come in groups, which are known once it is evaluated"


NETWORK = {"class": "quality", "feature_network": "models/dino", "num_images": 1000}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"watch": {"q": {**NETWORK, "num_images": 20}}}, "watch.quality.num_images=20, not 1000"),
        ({"watch": {"q": {**NETWORK, "num_steps": 50}}}, "watch.quality.num_steps=50, not 20"),
        ({"watch": {"q": {**NETWORK, "guidance_scale": 2.0}}}, "watch.quality.guidance_scale=2.0, not None"),
        ({"watch": {"q": {**NETWORK, "feature_network": "clip"}}}, "watch.quality.feature_network=clip, not models/dino"),
        ({"data": {"source": "emoji"}}, "data.source={'class': 'emoji'}, not {'class': 'digits'}"),
        ({"data": {"source": "digits", "num_public": 5}}, "data.num_public=5, not 0"),
        ({"watch": {"q": {**NETWORK, "every": {"epochs": 5}, "num_steps": 20}}}, None),
        ({"watch": None}, None),
    ],
)
def test_runs_of_other_images_or_another_look_are_not_compared(config, message, tmp_path):
    common = {"data": {"source": {"class": "digits"}}, "watch": {"quality": NETWORK}}
    runs = [make_run(tmp_path / "one", **common), make_run(tmp_path / "two", **{**common, **config})]
    for run in runs:
        for epoch, (_, value) in CURVE.items():
            look(SeriesFile(run / "metrics.csv"), epoch, value, "quality/kid_heldout")
    cells = {run.name: cell(run.name, run) for run in runs}
    if message is None:
        assert read_frontier(cells, tmp_path / "out").quality == "kid_heldout"
        return
    with pytest.raises(UserError, match=re.escape(f"{runs[1]} has {message} as {runs[0]}: ")):
        read_frontier(cells, tmp_path / "out")


def test_a_network_that_was_moved_is_the_same_and_one_that_changed_is_another(tmp_path):
    runs = [
        make_run(tmp_path / name, watch={"quality": {**NETWORK, "feature_network": path}})
        for name, path in (("one", "models/dino"), ("two", "elsewhere/dino"), ("three", "models/dino"))
    ]
    for run, sha256 in zip(runs, ("a" * 64, "a" * 64, "b" * 64)):
        look(SeriesFile(run / "metrics.csv"), 20, 0.3, "quality/kid_heldout")
        watched = {"quality": {"features": {"kid": f"dino, {run}, sha256 {sha256}"}}}
        (run / "evaluation" / "metrics.json").write_text(json.dumps({"epoch": 20, "watched": watched}))
    opened = [Run.open(run) for run in runs]
    check_compared(opened[:2], "kid_heldout")
    check_compared(opened, "kid_random_heldout")  # whose features are none of that network
    with pytest.raises(UserError, match=f"watch.quality.feature_network={'b' * 64}, not {'a' * 64}"):
        check_compared(opened, "kid_heldout")


def test_bounds_of_another_confidence_are_brought_to_that_of_the_frontier(tmp_path):
    of_one_deviation = 0.6826894921370859
    runs = [make_run(tmp_path / str(each), audit={"confidence": each}) for each in (0.95, of_one_deviation)]
    one, other = (Run.open(run).qualities["kid_random_heldout"][10] for run in runs)
    assert one.upper - one.value == pytest.approx(0.01)
    assert other.upper - other.value == pytest.approx(0.01 * 1.959963984540054)
    assert other.value - other.lower == pytest.approx(0.01 * 1.959963984540054)


def test_what_is_stored_is_of_these_intervals_and_this_format(cells, tmp_path, monkeypatch):
    audit = cells["plain"].runs[0] / "scores" / "epoch-10.safetensors"
    read_frontier(cells, tmp_path / "out")
    assert KnownStrongest(tmp_path / "out" / ".strongest", Intervals()).get(audit) is not None
    assert KnownStrongest(tmp_path / "out" / ".strongest", Intervals(confidence=0.9)).get(audit) is None
    monkeypatch.setattr(frontier_store, "FORMAT", frontier_store.FORMAT + 1)
    assert KnownStrongest(tmp_path / "out" / ".strongest", Intervals()).get(audit) is None


def test_two_that_end_together_both_write_the_frontier(cells, tmp_path):
    """The second waits for the first, and finds whole files."""
    out, inside = tmp_path / "out", []
    original = frontier_recipe.read_frontier

    def read(cells, folder):
        inside.append(holder_of(folder))
        return original(cells, folder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frontier_recipe, "read_frontier", read)
        page, table = write_frontier("x", cells, out)
    assert inside[0]["process"] == os.getpid()
    assert page.is_file()
    assert table.is_file()
    assert not [*out.glob("*.tmp")]


def test_the_command_reads_a_sweep_and_says_what_it_shows(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for label, factor in (("beta=1", 1.0), ("beta=2", 0.1)):
        curve = {epoch: (factor * strength, value) for epoch, (strength, value) in CURVE.items()}
        for seed in range(3):
            make_run(tmp_path / "sweeps" / "x" / "trials" / label / f"seed-{seed}", seed=seed, curve=curve)
    overrides = {
        label: ["trainer.figures=false", f"autoencoder.losses.kl.weight={label[-1]}"] for label in ("beta=2", "beta=1")
    }
    tree = {"name": "x", "config": "digits.yaml", "seeds": [0, 1, 2], "cells": overrides, "baseline": "beta=1"}
    (tmp_path / "sweeps" / "x" / "sweep.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    assert cli.main(["frontier", "sweeps/x"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "At equal quality beta=2 lowers the strongest attack's AUROC against beta=1." in said
    assert "Written to sweeps/x: frontier.html, frontier.csv." in said
    page = (tmp_path / "sweeps" / "x" / "frontier.html").read_text()
    journal = Journal(tmp_path / "sweeps" / "x")
    journal.enqueue("x", dict.fromkeys(overrides, "hash"), [0, 1, 2])
    journal.fail(journal.take(), "out of memory.")
    assert cli.main(["frontier", "sweeps/x", "baseline=beta=2"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Not in it: beta=2, seed 0, failed: out of memory. Written" in said
    assert "beta=2 is the baseline" in said
    assert "over two seeds." in said
    assert "ldm-privacy frontier sweeps/x" in page
    assert "trainer.figures=false" not in page, "what all settings have sets none apart"


def test_runs_that_are_named_are_set_apart_by_their_configs(tmp_path, capsys):
    runs = {label: make_run(tmp_path / label, denoiser={"lr": lr}) for label, lr in (("a", 0.1), ("b", 0.2))}
    named = [f"{label}={run}" for label, run in runs.items()]
    assert cli.main(["frontier", *named, f"out={tmp_path / 'out'}", "baseline=b"]) == 0
    page = (tmp_path / "out" / "frontier.html").read_text()
    assert "denoiser.lr=0.2" in page
    assert "output_dir=" not in page
    assert "b is the baseline" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: no sweep: it has no sweep.yaml"),
        (["{run}"], "no sweep: it has no sweep.yaml"),
        (["a={run}", "b"], "'b': name runs as label=run,run"),
        (["a={run}", "a={run}"], "'a' stands twice"),
        (["a={run}", "b=nowhere"], "nowhere: no run: it has no config.yaml"),
        (["plain={run}", "baseline=plian"], "baseline: there is no 'plian'. Did you mean 'plain'?"),
        (["a={run},{run}", "out={out}"], "a: {run} and {run} both have seed 0"),
        (["a={run}", "b={apart}", "out={out}"], r"seed 0: {apart} \(b\) is of another split than {run} \(a\)"),
        (["a={young}", "out={out}"], "no run has an audit yet"),
        (["a={blind}", "out={out}"], "no run has looked at quality"),
        (["a={uneven}", "out={out}"], "no run has an audit with kid_random_heldout"),
    ],
)
def test_mistakes_cost_one_line(arguments, message, tmp_path):
    places = {name: tmp_path / name for name in ("run", "apart", "young", "blind", "uneven", "out")}
    make_run(places["run"])
    make_run(places["apart"], split_seed=7)
    make_run(places["young"], curve={}, has_ended=False)
    make_run(places["blind"], looks=False)
    look(SeriesFile(make_run(places["uneven"], looks=False) / "metrics.csv"), 7, 0.1)
    with pytest.raises(UserError, match=message.format(**places)) as error:
        cli.main(["frontier", *(each.format(**places) for each in arguments)])
    assert "\n" not in str(error.value)
