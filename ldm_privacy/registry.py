"""Names for components: how a config file, a plug-in or a notebook reaches a class by its name.

A component is one file with `@ATTACKS.register("name")` above its class or function. The built-in ones are found by reading the
files, not by running them: naming all attacks imports none, and building one imports its file alone.
"""

import difflib
import importlib
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from ldm_privacy.errors import UserError

T = TypeVar("T", bound=Callable[..., Any])


def nearest_name(wrong: str, names: Sequence[str]) -> str:
    """A hint for an unknown name: " Did you mean 'x'?", or "" when nothing is close."""
    close = difflib.get_close_matches(wrong, names, n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else ""


class Registry:
    """A table from name to class (or function) of one kind.

    A second registration under a taken name is refused unless it is of the same place in the code, so that a plug-in can't
    replace a published method unnoticed.

    Args:
        variable: What the registry is called in the code ("ATTACKS").
        kind: What is registered, as messages say it ("attack").
        room: Folder of the built-in ones, below the package ("attacks").
    """

    def __init__(self, variable: str, kind: str, room: str):
        self.variable = variable
        self.kind = kind
        self.room = room
        self._components: dict[str, Callable[..., Any]] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that registers a class under `name`. Raises UserError where the name is taken, or is none."""
        if not isinstance(name, str):
            raise UserError(f'write @{self.variable}.register("name"), with the name of the {self.kind}.')

        def decorate(component: T) -> T:
            mine, taken = component.__module__, self._components.get(name)
            owner = self._built_in.get(name, mine)
            if taken is not None:
                mine, owner = (f"{each.__module__}.{each.__qualname__}" for each in (component, taken))
            if mine != owner:
                raise UserError(f"{self.kind} '{name}' is already registered by {owner}; choose another name.")
            self._components[name] = component
            return component

        return decorate

    def get(self, name: str) -> Callable[..., Any]:
        """The component of that name. Raises UserError with the nearest name where there is none."""
        if name not in self._components and name in self._built_in:
            importlib.import_module(self._built_in[name])
        if name not in self._components:
            raise UserError(self.unknown(name))
        return self._components[name]

    def unknown(self, name: str) -> str:
        """What is said of a name that nothing has."""
        return f"unknown {self.kind} '{name}'.{nearest_name(name, list(self))} Known: {', '.join(self)}."

    def maker(self, name: str) -> Callable[..., Any]:
        """What is called to build the component of that name: its `build` where it has one, else itself."""
        component = self.get(name)
        return getattr(component, "build", component)

    def own(self) -> dict[str, Callable[..., Any]]:
        """Those that are a user's own: registered from outside the room's files."""
        return {name: component for name, component in self._components.items() if name not in self._built_in}

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*self._built_in, *self._components}))

    def __contains__(self, name: object) -> bool:
        return name in self._components or name in self._built_in

    @cached_property
    def _built_in(self) -> dict[str, str]:
        """Name -> module of every registration in the files of the room."""
        root = Path(__file__).parent
        line = re.compile(rf'^@{self.variable}\.register\("([^"]+)"\)', re.MULTILINE)
        return {
            name: ".".join(("ldm_privacy", *path.relative_to(root).with_suffix("").parts))
            for path in sorted((root / self.room).rglob("*.py"))
            for name in line.findall(path.read_text(encoding="utf-8"))
        }


ATTACKS = Registry("ATTACKS", "attack", "attacks")
CALIBRATIONS = Registry("CALIBRATIONS", "calibration", "calibrations")
CHANNEL_MAPS = Registry("CHANNEL_MAPS", "channel map", "models")
CODECS = Registry("CODECS", "codec", "models")
CONDITIONS = Registry("CONDITIONS", "condition", "data")
CONTROLS = Registry("CONTROLS", "control", "controls")
DENOISERS = Registry("DENOISERS", "denoiser", "models")
FAMILIES = Registry("FAMILIES", "family of pipelines", "targets")
IMAGE_SOURCES = Registry("IMAGE_SOURCES", "image source", "data")
INFLUENCE_ESTIMATORS = Registry("INFLUENCE_ESTIMATORS", "influence estimator", "geometry")
LOGGERS = Registry("LOGGERS", "logger", "runs")
LOSSES = Registry("LOSSES", "loss", "losses")
MASK_RULES = Registry("MASK_RULES", "mask rule", "geometry")
REQUIREMENTS = Registry("REQUIREMENTS", "requirement", "evidence")
SECTIONS = Registry("SECTIONS", "report section", "report")
TARGETS = Registry("TARGETS", "target", "targets")
TIMESTEP_SAMPLERS = Registry("TIMESTEP_SAMPLERS", "timestep sampler", "training")
WATCHERS = Registry("WATCHERS", "watcher", "watch")
