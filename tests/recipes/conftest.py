"""Whole runs that the tests of this room share; tests read them and write elsewhere."""

import signal
from pathlib import Path

import pytest

from ldm_privacy.recipes import cli
from tests.tiny import arguments


@pytest.fixture(autouse=True)
def plain_process():
    """What a run sets for its whole process is put back."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture(autouse=True)
def without_figures(request, monkeypatch):
    """Figures have tests of their own, and they are most of an evaluation's time; the fixture `figures` asks for them."""
    if "figures" not in request.fixturenames:
        monkeypatch.setattr("ldm_privacy.recipes.publish.evidence_figures", lambda *arguments, **options: {})


@pytest.fixture
def figures():
    """Asks for every figure."""


@pytest.fixture(scope="session")
def run(tmp_path_factory) -> Path:
    """One run from start to end."""
    folder = tmp_path_factory.mktemp("run")
    assert cli.train(arguments(folder)) == 0
    return folder / "digits"
