"""Fixtures of the whole suite."""

import gc
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("WANDB_SILENT", "true")

from functools import cache
from pathlib import Path

import pytest
import torch

from ldm_privacy.data.sources import Digits

# One thread per test process: small tensors gain nothing from more, and parallel processes would fight over the cores.
torch.set_num_threads(1)

gc.disable()  # until all tests are imported

_digits = Digits.open


@cache
def _opened():
    return _digits(Digits())


# Every run and evaluation of the suite would encode the same 1,797 images anew.
Digits.open = lambda self: _opened()


def pytest_collection_modifyitems(items):
    """Files of whole runs come first: a long one that began last would leave the other workers waiting."""
    items.sort(key=lambda item: item.path.parent.name != "recipes")


def pytest_collection_finish():
    """What every test has in memory, a million objects of libraries, is not searched for garbage again and again."""
    gc.collect()
    gc.freeze()
    gc.enable()


SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture
def shared_file():
    """A function path -> Path below the folder of reference numbers and real images beside the checkout, or a skip."""

    def find(relative: str) -> Path:
        path = SHARED / relative
        if not path.exists():
            pytest.skip(f"shared/{relative} is not beside this checkout")
        return path

    return find


@pytest.fixture
def limit_memory(monkeypatch):
    """A function of bytes: the budget of every network pass, until the test ends."""

    def limit(num_bytes):
        monkeypatch.setattr("ldm_privacy.device._limit_gib", num_bytes / 2**30)

    return limit


@pytest.fixture
def traced(monkeypatch):
    """torch.compile without the code generation, which takes minutes: the modes asked for, and the graphs traced.

    A break in the graph is an error.
    """
    torch._dynamo.reset()
    compile_, modes, graphs = torch.compile, [], []

    def keep(graph, inputs):
        graphs.append(graph)
        return graph.forward

    def quick(function, *, mode, dynamic):
        modes.append(mode)
        return compile_(function, backend=keep, fullgraph=True, dynamic=dynamic)

    monkeypatch.setattr(torch, "compile", quick)
    yield modes, graphs
    torch._dynamo.reset()
