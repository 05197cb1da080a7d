"""Whole runs that the tests of this room share; tests read them and write elsewhere."""

from pathlib import Path

import pytest

from ldm_privacy.recipes import cli
from tests.tiny import DISTORTION, arguments
from tests.undrawn import undrawn


@pytest.fixture(scope="module", autouse=True)
def without_figures():
    """In this room; `draw` takes it back for a test."""
    with undrawn():
        yield


@pytest.fixture(scope="session")
def run(tmp_path_factory) -> Path:
    """One run from start to end."""
    folder = tmp_path_factory.mktemp("run")
    with undrawn():
        assert cli.train(arguments(folder, DISTORTION)) == 0
    return folder / "digits"
