"""Files in parts: what arrives is what was cut, whenever its parts are there."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import parts


@pytest.fixture
def cut(tmp_path, monkeypatch):
    """Three files of 2,500, 0 and 700 bytes in parts of 1,000."""
    monkeypatch.chdir(tmp_path)
    Path("wheels/below").mkdir(parents=True)
    Path("wheels/a.whl").write_bytes(bytes(range(250)) * 10)
    Path("wheels/below/empty").write_bytes(b"")
    Path("split.npz").write_bytes(b"x" * 700)
    assert parts.split(Path("parts"), [Path("wheels"), tmp_path / "split.npz"], 1000) == 4
    return tmp_path


def test_what_was_cut_is_put_together(cut):
    assert [file.stat().st_size for file in sorted(Path("parts").glob("part-*"))] == [1000, 1000, 1000, 200]
    written, waiting, missing = parts.join(Path("parts"), Path("there"))
    assert (written, waiting, missing) == (["wheels/a.whl", "wheels/below/empty", "split.npz"], [], [])
    for name in written:
        assert (Path("there") / name).read_bytes() == Path(name).read_bytes()


def test_what_is_whole_is_written_and_the_rest_waits_for_its_parts(cut):
    Path("parts/part-001").rename("part-001")
    written, waiting, missing = parts.join(Path("parts"), Path("there"))
    assert (waiting, missing) == (["wheels/a.whl"], ["part-001"])
    assert written == ["wheels/below/empty", "split.npz"]
    Path("part-001").rename("parts/part-001")
    for name in ("part-003", "part-004"):  # of files that were written before
        (Path("parts") / name).rename(name)
    assert parts.join(Path("parts"), Path("there"))[1] == ["wheels/a.whl"]
    Path("part-003").rename("parts/part-003")
    assert parts.join(Path("parts"), Path("there"))[1:] == ([], ["part-004"])
    assert Path("there/wheels/a.whl").read_bytes() == Path("wheels/a.whl").read_bytes()


def test_a_part_that_changed_on_its_way_is_refused(cut):
    Path("parts/part-002").write_bytes(b"y" * 1000)
    with pytest.raises(SystemExit, match="part-002 isn't what was cut"):
        parts.join(Path("parts"), Path("there"))
    assert not Path("there/wheels/a.whl").exists()


def test_no_file_is_written_outside_the_folder(cut):
    manifest = json.loads(Path("parts/parts.json").read_text())
    manifest["files"][0]["name"] = "../outside"
    Path("parts/parts.json").write_text(json.dumps(manifest))
    with pytest.raises(SystemExit, match="leads out"):
        parts.join(Path("parts"), Path("there"))


def test_the_program_needs_no_package(cut):
    program = [sys.executable, "-I", "-S", parts.__file__]
    done = subprocess.run([*program, "join", "parts", "there"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "3 files in there.\n")
    Path("parts/part-001").unlink()
    done = subprocess.run([*program, "join", "parts", "elsewhere"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "2 files are whole, 1 wait for part-001.\n")
    done = subprocess.run([*program, "split", "more", "nothing"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == f"error: {cut / 'nothing'}: there is no such file or folder.\n"
