"""Names for components: how a config file, a plug-in or a notebook reaches a class by its name."""

import difflib
import importlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from ldm_privacy.errors import UserError

T = TypeVar("T", bound=Callable[..., Any])


def nearest_name(wrong: str, names: Sequence[str]) -> str:
    """A hint for an unknown name: " Did you mean 'x'?", or "" when nothing is close."""
    close = difflib.get_close_matches(wrong, names, n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else ""


class Registry:
    """A table from name to class (or function) of one kind.

    A second registration under a taken name is refused unless it is the very same object, so that a plug-in can't replace
    a published method unnoticed.

    Args:
        kind: What is registered, as messages say it ("attack").
        modules: Modules that register the built-in components; imported at the first look-up, so that a registry can live
            below the code that fills it.
    """

    def __init__(self, kind: str, modules: Sequence[str] = ()):
        self.kind = kind
        self._modules = list(modules)
        self._components: dict[str, Callable[..., Any]] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that registers a class under `name`. Raises ValueError where the name is taken."""

        def decorate(component: T) -> T:
            taken = self._components.get(name)
            if taken is not None and (taken.__module__, taken.__qualname__) != (
                component.__module__,
                component.__qualname__,
            ):
                raise ValueError(f"{self.kind} '{name}' is already registered by {taken.__module__}.{taken.__qualname__}")
            self._components[name] = component
            return component

        return decorate

    def get(self, name: str) -> Callable[..., Any]:
        """The component of that name. Raises UserError with the nearest name where there is none."""
        self._load()
        if name not in self._components:
            names = ", ".join(self)
            raise UserError(f"unknown {self.kind} '{name}'.{nearest_name(name, list(self))} Known: {names}.")
        return self._components[name]

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(sorted(self._components))

    def __contains__(self, name: object) -> bool:
        self._load()
        return name in self._components

    def _load(self) -> None:
        while self._modules:
            importlib.import_module(self._modules.pop())


ATTACKS = Registry("attack", ["ldm_privacy.attacks"])
IMAGE_SOURCES = Registry("image source", ["ldm_privacy.data"])
AUTOENCODERS = Registry("autoencoder", ["ldm_privacy.models"])
DENOISERS = Registry("denoiser", ["ldm_privacy.models"])
INFLUENCE_ESTIMATORS = Registry("influence estimator", ["ldm_privacy.geometry"])
MASK_RULES = Registry("mask rule", ["ldm_privacy.geometry"])
