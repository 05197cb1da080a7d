"""`audit.forecast`: runs that foretell another's onset, read from their folders; what is no such run costs one line."""

import re

import numpy as np
import pytest
import yaml

from ldm_privacy.config import compose
from ldm_privacy.errors import UserError
from ldm_privacy.evidence.forecast import Size
from ldm_privacy.recipes import cli
from ldm_privacy.recipes.pilots import compared, foretold, read_pilots
from ldm_privacy.runs.series import SeriesFile
from tests.recipes.test_lightness import program
from tests.tiny import arguments, settings

TREE = compose("digits", settings()).tree


def onset(key, looks):
    """Epoch -> series of each look."""
    area = f"memorization/{key}"
    return {epoch: {f"{area}/rise": rise, f"{area}/rise_lower": rise - 0.1} for epoch, rise in looks.items()}


def curves_of(series):
    """As metrics.csv is read: (epoch, series) -> value."""
    return {(epoch, name): value for epoch, values in series.items() for name, value in values.items()}


def write(folder, curves, tree=TREE, num_members=20):
    """The three files of a run that a pilot is read from."""
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(tree))
    np.savez(folder / "split.npz", mia_train_idxs=np.arange(num_members), mia_eval_idxs=np.arange(40))
    file = SeriesFile(folder / "metrics.csv")
    file.write("denoiser", 0, {"memorization/sima/all/auroc": 0.5})
    for epoch, series in curves.items():
        file.write("denoiser", epoch, series)
    return str(folder)


def naming(*folders):
    return {**TREE, "audit": {**TREE["audit"], "forecast": list(folders)}}


@pytest.fixture
def pilot(tmp_path):
    """20 members, two steps an epoch."""
    return write(tmp_path / "pilot", onset("sima/all", {2: -1.0, 4: 1.0, 6: 1.0}))


def test_the_plan_says_when(pilot, tmp_path, capsys):
    assert cli.train(arguments(tmp_path / "runs", "dry_run=true", f"audit.forecast=[{pilot}]", "trainer.max_epochs=10")) == 0
    output = " ".join(capsys.readouterr().out.split())
    assert (
        "Memorization (onset of sima/all) is to be expected about step 12 (epoch 4), between 3 and 24: this training has 30 "
        "steps."
    ) in output
    assert "(20 members, batch 16, 60 images audited, found by step 8 (epoch 4))" in output
    assert "differs" not in output
    assert not (tmp_path / "runs").exists()


def test_without_pilots_the_plan_says_how_to_make_one():
    says, make, _ = foretold(TREE, num_members=4000, num_heldout=4000)
    assert "not known without a pilot" in says
    assert "name=pilot data.num_members=400 data.num_heldout=400" in make


def test_what_else_differs_is_named(pilot, tmp_path):
    changed = {
        **TREE,
        "seed": 7,
        "trainer": {**TREE["trainer"], "max_epochs": 99},
        "denoiser": {**TREE["denoiser"], "learning_rate": 0.5, "batch_size": 8},
        "audit": {**TREE["audit"], "every_n_epochs": 1, "attacks": {"sima": {"class": "sima", "power": 2}, "loss": None}},
    }
    other = write(tmp_path / "other", onset("sima/all", {2: 1.0}), changed)
    same, different = read_pilots(naming(pilot, other, pilot))
    assert same.differs == ()
    assert different.differs == ("denoiser.learning_rate", "audit.attacks.sima.power")
    assert different.size == Size(20, 8, (20, 40))


def test_what_is_watched_in_all_pilots_is_foretold_of_each(tmp_path):
    both = onset("sima/all", {2: -1.0, 4: 1.0, 6: 1.0})
    both[4] |= onset("sima_calibrated/all", {4: 1.0, 6: 1.0})[4]
    tree = naming(write(tmp_path / "a", both))
    first, second, rest = foretold(tree, num_members=40, num_heldout=40)
    assert "onset of sima/all" in first
    assert "onset of sima_calibrated/all" in second
    assert rest.startswith("It rests on ")
    alone = write(tmp_path / "b", onset("sima/all", {2: -1.0}))
    only, _ = foretold(naming(*tree["audit"]["forecast"], alone), num_members=40, num_heldout=40)
    assert "onset of sima/all" in only


def test_afterwards_it_is_held_against_what_was_found(pilot):
    found = curves_of(onset("sima/all", {2: -1.0, 4: 1.0, 6: 1.0}))
    held, rests, own = compared(naming(pilot), found, num_members=40, num_heldout=40)
    assert held == (
        "Onset of sima/all, forecast: about step 12 (epoch 4), between 3 and 24. Audited: none by step 6 (epoch 2), found by "
        "step 12 (epoch 4): inside the bounds."
    )
    assert own.startswith(
        "At this batch size and learning rate the onset of sima/all was found by 0.3 steps a member; on 400 members"
    )
    assert rests.startswith(f"It rests on {pilot} (20 members")
    assert compared(TREE, found, num_members=40, num_heldout=40) == [own]
    for nothing in ({}, onset("sima/all", {2: 1.0})):
        assert compared(TREE, curves_of(nothing), num_members=40, num_heldout=40) == []


def test_a_pilot_that_is_gone_takes_nothing_from_a_finished_training():
    lines = compared(naming("nowhere"), curves_of(onset("sima/all", {2: -1.0})), num_members=40, num_heldout=40)
    assert lines[0].startswith("The forecast can't be compared: audit.forecast: 'nowhere' is no run")
    assert "was not found by" in lines[1]
    assert len(lines) == 2


def test_what_is_no_pilot_costs_one_line(pilot, tmp_path):
    (tmp_path / "empty").mkdir()
    write(tmp_path / "untrained", {})
    write(tmp_path / "loss", onset("loss/all", {2: 1.0}))
    for file, content in {"metrics.csv": "stage,epoch\ndenoiser,2\n", "split.npz": "x", "config.yaml": "denoiser: 3\n"}.items():
        folder = tmp_path / f"bad-{file}"
        write(folder, onset("sima/all", {2: 1.0}))
        (folder / file).write_text(content)
    for name, message in {
        "nowhere": "is no run: it has no config.yaml",
        "empty": "is no run: it has no config.yaml",
        "untrained": "has no audit after that of the untrained denoiser",
        "loss": "counted its onset by loss/all, this config counts it by sima/all",
        "bad-metrics.csv": "can't be read as a run",
        "bad-split.npz": "can't be read as a run",
        "bad-config.yaml": "can't be read as a run",
    }.items():
        folder = str(tmp_path / name)
        with pytest.raises(UserError, match=re.escape(f"audit.forecast: '{folder}' {message}")) as caught:
            read_pilots(naming(pilot, folder))
        assert len(str(caught.value).splitlines()) == 1


def test_it_is_told_at_once(tmp_path):
    write(tmp_path / "loss", onset("loss/all", {2: 1.0}))
    line = ["train.py", "--config", "digits.yaml", "audit.forecast=[loss]"]
    done, _, imported, seconds = program(line, tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: audit.forecast: 'loss' counted its onset by loss/all")
    assert len(done.stderr.splitlines()) == 1
    assert imported == []
    assert seconds < 2
    assert not (tmp_path / "runs").exists()
