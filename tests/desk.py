"""A folder in which somebody works who has only installed the package, with files of their own in it."""

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ldm_privacy.plugins import REGISTRIES


@contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Inside, `folder` is the working directory and its modules can be imported; afterwards they are forgotten."""
    before, path = os.getcwd(), list(sys.path)
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        os.chdir(before)
        sys.path[:] = path
        mine = {name for name, module in sys.modules.items() if str(getattr(module, "__file__", "")).startswith(str(folder))}
        for name in mine:
            del sys.modules[name]
        for registry in REGISTRIES:
            for name, component in registry.own().items():
                if component.__module__ in mine or not hasattr(sys.modules.get(component.__module__), "__file__"):
                    del registry._components[name]
