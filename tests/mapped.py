"""Where a tensor lies: in memory, or in a file that is mapped."""

from pathlib import Path

import pytest


def file_of(tensor):
    """What is mapped where the numbers of a tensor begin: a path, with "(deleted)" behind it where it has no name; or ""."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("this system doesn't tell what is mapped")
    for line in maps.read_text().splitlines():
        (
            span,
            *_,
        ) = line.split(maxsplit=1)
        first, last = (int(each, 16) for each in span.split("-"))
        if first <= tensor.data_ptr() < last:
            return " ".join(line.split()[5:])
    raise AssertionError("no such address")
