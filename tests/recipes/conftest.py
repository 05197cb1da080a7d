"""Whole runs that the tests of this room share; tests read them and write elsewhere."""

import signal
from pathlib import Path

import pytest

from ldm_privacy.recipes import cli
from tests.tiny import DISTORTION, arguments
from tests.undrawn import undrawn


@pytest.fixture(autouse=True)
def plain_process():
    """What a run sets for its whole process is put back."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


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
