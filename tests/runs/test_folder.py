"""The folder of a run: never written over, found again from what lies in it."""

import errno
import re
from pathlib import Path

import pytest

from ldm_privacy.errors import UserError
from ldm_privacy.runs.folder import RunFolder, check_name, check_writable, next_free


def test_a_taken_name_gets_a_number(tmp_path):
    folders = [RunFolder.create(tmp_path / "runs", "digits") for _ in range(3)]
    assert [each.path.name for each in folders] == ["digits", "digits-2", "digits-3"]
    assert all(each.checkpoints.is_dir() and each.figures.is_dir() for each in folders)


def test_a_place_that_can_hold_no_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    file, mend = re.escape(str(tmp_path / "file")), r"is a file, not a folder\. Name another place with output_dir=FOLDER\.$"
    with pytest.raises(UserError, match=rf"^output_dir: '{file}' {mend}"):
        RunFolder.create(tmp_path / "file", "digits")
    with pytest.raises(UserError, match=rf"^output_dir: '{file}/a/b' can't be made: '{file}' {mend}"):
        RunFolder.create(tmp_path / "file" / "a" / "b", "digits")


def test_a_place_that_leads_nowhere_is_named(tmp_path):
    (tmp_path / "runs").symlink_to(tmp_path / "gone")
    with pytest.raises(UserError, match=rf"^output_dir: '{tmp_path}/runs/digits' can't be made \(File exists\)\.$"):
        RunFolder.create(tmp_path / "runs", "digits")


def test_a_further_folder_is_the_next_that_is_free(tmp_path):
    names = [next_free(tmp_path / "evaluation", first=2).name for _ in range(2)]
    assert names == ["evaluation-2", "evaluation-3"]


def test_a_place_that_cannot_be_written_to_is_found_without_making_it(tmp_path, monkeypatch):
    check_writable(tmp_path / "a" / "b", "out")
    assert list(tmp_path.iterdir()) == []

    def read_only(dir):
        raise OSError(errno.EROFS, "Read-only file system", str(dir))

    monkeypatch.setattr("tempfile.TemporaryFile", read_only)
    mend = r"can't be written to \(Read-only file system\)\. Name another place with out=FOLDER\.$"
    with pytest.raises(UserError, match=rf"^out: '{tmp_path}/a/b' can't be made: '{tmp_path}' {mend}"):
        check_writable(tmp_path / "a" / "b", "out")
    with pytest.raises(UserError, match=rf"^out: '{tmp_path}' {mend}"):
        check_writable(tmp_path, "out")


@pytest.mark.parametrize("name", ["", "a/b", "../up", ".hidden", "..", "x" * 201])
def test_a_name_that_is_no_folders_is_named(name):
    with pytest.raises(UserError, match="can't be a folder's name"):
        check_name(name)


@pytest.mark.parametrize(
    ("path", "run"),
    [
        ("runs/digits/checkpoints/last.ckpt", "runs/digits"),
        ("runs/digits/evaluation/scores.parquet", "runs/digits"),
        ("runs/digits/evaluation-before-onset-2/scores.parquet", "runs/digits"),
        ("elsewhere/copy.ckpt", "elsewhere"),
    ],
)
def test_the_run_around_a_file_is_found(path, run):
    assert RunFolder.around(Path(path)).path == Path(run)


def test_the_run_around_a_file_here_is_this_folder(tmp_path, monkeypatch):
    (tmp_path / "checkpoints").mkdir()
    monkeypatch.chdir(tmp_path / "checkpoints")
    assert RunFolder.around(Path("last.ckpt")).path == tmp_path


def test_a_config_is_replaced_whole_and_a_run_is_known_by_it(tmp_path):
    run = RunFolder.create(tmp_path, "digits")
    with pytest.raises(UserError, match=r"is no run: it has no config\.yaml"):
        RunFolder.open(str(run.path))
    run.write_config("seed: 0")
    run.write_config("seed: 1")
    assert RunFolder.open(str(run.path)).config.read_text() == "seed: 1"
    assert sorted(each.name for each in run.path.iterdir()) == ["checkpoints", "config.yaml", "figures"]


@pytest.mark.parametrize(("name", "config"), [("", None), ("runs/x", "digits.yaml")])
def test_resuming_takes_a_folder_alone(name, config):
    with pytest.raises(UserError, match="resume: name a run's folder"):
        RunFolder.open(name, config=config)
