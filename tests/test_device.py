"""The memory budget of network passes, and what is fetched ahead of them."""

import sys
import threading

import pytest
import torch

from ldm_privacy import device
from ldm_privacy.device import ahead, in_passes, limit_memory, lower_memory, memory_budget, passes, rows_within

CPU, META = torch.device("cpu"), torch.device("meta")


@pytest.fixture(autouse=True)
def _default_afterwards(limit_memory):
    limit_memory(2**28)


@pytest.mark.parametrize("num_rows", [0, 1, 7, 100])
@pytest.mark.parametrize("most", [1, 3, 7, 1000])
def test_passes_take_every_row_once_in_order_in_about_equal_parts(num_rows, most):
    found = passes(num_rows, most)
    sizes = [rows.stop - rows.start for rows in found]
    assert [row for rows in found for row in range(rows.start, rows.stop)] == [*range(num_rows)]
    assert len(found) == max(1, -(-num_rows // most))
    assert max(sizes) <= most
    assert max(sizes) - min(sizes) <= 1
    value, seen = torch.arange(num_rows), []
    assert torch.equal(in_passes(lambda part: (seen.append(len(part)), part + 1)[1], value, most), value + 1)
    assert seen == sizes


def test_the_budget_is_one_number_for_every_pass():
    limit_memory(None)
    assert memory_budget(CPU) == memory_budget(META) == 2**28
    assert memory_budget(torch.device("cuda")) == 2**32
    assert (rows_within(2**20, CPU), rows_within(2**29, CPU), rows_within(0, CPU)) == (256, 1, 2**28)
    limit_memory(1.5)
    assert memory_budget(CPU) == memory_budget(torch.device("cuda")) == 3 * 2**29
    assert "lower audit.memory_gib (now 1.5;" in lower_memory(CPU)


def test_the_next_batch_is_fetched_while_this_one_is_worked_on():
    started = [threading.Event() for _ in range(4)]

    def fetch(number):
        started[number].set()
        return 10 * number

    found = []
    for number, value in enumerate(ahead(fetch, range(4))):
        if number < 3:
            assert started[number + 1].wait(20), "nobody asked for it yet"
        found.append(value)
    assert found == [0, 10, 20, 30]
    assert list(ahead(fetch, [])) == []


def test_an_error_comes_where_its_batch_would_have_and_leaving_ends_the_thread():
    fetched = []

    def fetch(number):
        fetched.append(number)
        if number == 2:
            raise ValueError("the third")
        return number

    walk = ahead(fetch, range(100))
    found = [next(walk), next(walk)]
    with pytest.raises(ValueError, match="the third"):
        next(walk)
    assert found == [0, 1]
    assert len(fetched) <= 4
    fetched.clear()
    walk = ahead(lambda number: fetched.append(number), range(100))
    next(walk)
    walk.close()
    assert len(fetched) <= 2
    assert not [each for each in threading.enumerate() if each.name.startswith("ThreadPoolExecutor")]


def test_elsewhere_than_on_linux_no_library_is_looked_for(monkeypatch):
    def refuse(name):
        raise TypeError("Windows knows no library without a name")

    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(device.ctypes, "CDLL", refuse)
    monkeypatch.setattr(device, "_given_back", -1.0)
    monkeypatch.setattr(device, "monotonic", lambda: 0.0)
    device._malloc_trim.cache_clear()
    assert list(ahead(abs, [-1, -2])) == [1, 2]
    monkeypatch.undo()
    device._malloc_trim.cache_clear()
