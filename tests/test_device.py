"""The memory budget of network passes."""

import pytest
import torch

from ldm_privacy.device import in_passes, limit_memory, lower_memory, memory_budget, passes, rows_within

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
