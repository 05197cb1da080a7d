"""The wheel: one package in it, and its console script trains where nothing of the checkout is."""

import importlib.util
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from tests.tiny import TINY, series

ROOT = Path(__file__).resolve().parents[2]


def pip(*arguments):
    subprocess.run([sys.executable, "-m", "pip", "--no-input", "-q", *map(str, arguments)], check=True)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The wheel's files in a folder of their own."""
    if any(importlib.util.find_spec(name) is None for name in ("pip", "setuptools")):
        pytest.skip("a wheel is built offline by the setuptools of this environment, which has none")
    source, wheels, target = (tmp_path_factory.mktemp(name) for name in ("source", "wheels", "target"))
    # A copy: what lies in the checkout's build/ from earlier would end up in the wheel.
    for name in ("ldm_privacy", "callbacks", "configs"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip("wheel", "--no-deps", "--no-build-isolation", "-w", wheels, source)
    pip("install", "--no-deps", "--target", target, *wheels.glob("*.whl"))
    return target


def test_it_holds_one_package_and_every_file_of_it(installed):
    names = {path.name.partition("-")[0] for path in installed.iterdir()}
    assert names == {"ldm_privacy", "bin"}
    assert [path.name for path in (installed / "bin").iterdir()] == ["ldm-privacy"]
    shipped = {path.relative_to(installed) for path in installed.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    package = {path.relative_to(ROOT) for path in (ROOT / "ldm_privacy").rglob("*") if path.is_file()}
    for name in ("callbacks", "configs"):  # links in the checkout, real files here
        package |= {Path("ldm_privacy") / path.relative_to(ROOT) for path in (ROOT / name).rglob("*") if path.is_file()}
    missing = {path for path in package if "__pycache__" not in path.parts} - shipped
    assert not missing
    assert not any(path.is_symlink() for path in installed.rglob("*"))


@pytest.fixture
def program(installed, tmp_path):
    """Calls the console script from an empty folder, but for folders of the user's own that are called like ours."""
    for name in ("callbacks", "configs", "configs/data"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('a stranger was imported')")
        (tmp_path / name / "digits.yaml").write_text("][ no YAML")

    def call(*arguments):
        environment = {**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, *map(str, arguments)]
        found = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert not found.returncode, found.stderr
        return found.stdout

    assert call("-c", "import ldm_privacy; print(ldm_privacy.__file__)").startswith(str(installed))
    return partial(call, installed / "bin" / "ldm-privacy")


@pytest.mark.slow
def test_the_console_script_trains_among_strangers(program, tmp_path):
    output = program("train", "--config", "digits.yaml", *TINY, "trainer.max_epochs=2", "loggers=[]")
    assert "ldm-privacy evaluate ckpt=runs/digits/checkpoints/last.ckpt" in output
    assert ("denoiser", 2, "memorization/sima/all/auroc") in series(tmp_path / "runs" / "digits")
    assert "python" not in output
    assert "digits.yaml" in program("train", "--help")
