"""Plug-ins: importing the user's own files, and telling what goes wrong in one of them in one line, with file and line."""

import importlib
import inspect
import os
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

from ldm_privacy import registry
from ldm_privacy.errors import UserError, reason_of
from ldm_privacy.registry import ATTACKS, Registry, nearest_name

REGISTRIES = [each for each in vars(registry).values() if isinstance(each, Registry)]
_MAX_LENGTH = 300
_IMPORTED: set[str] = set()
"""Every name that was imported as a plug-in, or that importing was begun of."""


def plugin_names(value: object) -> list[str]:
    """The names that `plugins` holds; none where it is None. Raises UserError for anything but a list of module names."""
    if value is None:
        return []
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise UserError(f"plugins: expected a list of module names, as in plugins=[my_attack], got {value!r}.")
    for name in names:
        if name.endswith(".py") or "/" in name or "\\" in name or name.startswith("."):
            raise UserError(f"plugins: '{name}' is a path; {_as_module(name)}.")
    if isinstance(value, str):
        raise UserError(f"plugins: expected a list of module names; write plugins=[{value}].")
    return names


def check_plugins(value: object) -> list[str]:
    """The names that `plugins` holds, none of which is imported. Raises UserError as `plugin_names`, or for no such module."""
    names = plugin_names(value)
    for name in names:
        top = name.split(".")[0]  # to look for what lies in it would import it
        if _file_beside_user(name) is None and top not in sys.modules and find_spec(top) is None:
            raise UserError(_not_there(name))
    return names


def import_plugins(value: object) -> None:
    """Import every plug-in that `plugins` names, each of which registers something.

    Raises:
        UserError: As `check_plugins`; a package has no such module; it raises, ends the program or has a syntax error (file
            and line are named); it takes a name that is taken; it registers nothing; another module has its name.
    """
    names = check_plugins(value)
    if names and "" not in sys.path:
        sys.path.insert(0, "")  # a module beside the user, as `python -m` would find it
    for name in names:
        before = [each.own() for each in REGISTRIES]
        was_loaded = name in sys.modules
        is_known = was_loaded and name in _IMPORTED
        _IMPORTED.add(name)
        module = _imported(name)
        if (here := _file_beside_user(name)) is not None and here != _file_of(module):
            taken = _file_of(module) or "Python's own"
            raise UserError(f"plugins: {_shown(here)} is hidden by another module '{name}' ({taken}); rename it.")
        components = [component for each in REGISTRIES for component in each.own().values()]
        is_empty = not any(f"{component.__module__}.".startswith(f"{name}.") for component in components)
        if is_empty and not is_known and before == [each.own() for each in REGISTRIES]:
            _IMPORTED.remove(name)
            if not was_loaded:
                del sys.modules[name]  # or another try in this process would pass
            raise UserError(
                f"plugins: '{name}' ({_shown(_file_of(module) or name)}) registers nothing; put "
                '@ATTACKS.register("name"), or the registry of another kind, above its class.'
            )


@contextmanager
def blamed_on(component: object) -> Iterator[None]:
    """Inside, an error is that of a component (a registered class or function, or what one made), wherever it is raised.

    The error goes on as it is; `explained` names the component where it is the user's own.
    """
    try:
        yield
    except Exception as error:
        if not hasattr(error, "blamed_on"):
            error.blamed_on = component  # type: ignore[attr-defined]
        raise


def is_own(component: object) -> bool:
    """Whether a registered class or function, or what one made, is a user's own."""
    return _registration(component) is not None


def explained(error: BaseException) -> str | None:
    """What a plug-in did wrong, in one line; None where none is to blame.

    "attack 'mirror' (my_attack.py:31): ValueError: ...". The line is the innermost one that is the user's own, or where the
    component is defined.
    """
    found: tuple[BaseException, str | None, object] | None = None
    cause: BaseException | None = error
    while cause is not None:
        place, nearest, is_raised_there = _place(cause)
        nearest = nearest or getattr(cause, "blamed_on", None)
        if place is not None or (found is None and is_own(nearest)):
            found = cause, place, nearest
        if is_raised_there:
            break
        # What a library says of an error in a user's line is less than that error.
        cause = cause.__cause__ or (None if found or cause.__suppress_context__ else cause.__context__)
    if found is None:
        return None
    cause, place, nearest = found
    if (registration := _registration(nearest)) is None:
        return f"plug-in {place}: {_line(cause)}"
    kind, name, component = registration
    place = place or _definition(component)
    hint = "; check it with ldm_privacy.testing.check_attack" if kind == ATTACKS.kind else ""
    return f"{kind} '{name}'{f' ({place})' if place else ''}: {_line(cause)}{hint}"


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        place = _place(error)[0]
        if place is None and isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
            raise UserError(_not_there(name)) from error
        if place is None and (here := _file_beside_user(name)) is not None:
            place = _shown(here)  # Python doesn't say where a zero byte is
        words = str(error) if isinstance(error, UserError) else _line(error)
        raise UserError(f"plugins: '{name}' can't be imported: {f'{place}: ' if place else ''}{words}") from error


def _not_there(name: str) -> str:
    hint = nearest_name(name, [path.stem for path in Path().glob("*.py")])
    return f"plugins: there is no module '{name}' in {os.getcwd()}, where you run, or among the installed ones.{hint}"


def _as_module(path: str) -> str:
    """How to name the module in that file."""
    file = Path(path.replace("\\", "/"))
    module = file.with_suffix("") if file.suffix == ".py" else file
    parts = [part for part in module.parts if part != "."]
    if module.is_absolute() or ".." in parts:
        folder = module.parent
        return f"name its module: plugins=[{module.name}], run in {folder} or with PYTHONPATH={folder}"
    return f"name its module: plugins=[{'.'.join(parts).lstrip('.')}], looked for in {os.getcwd()} and among the installed ones"


def _file_beside_user(name: str) -> Path | None:
    """The file of that module where the program runs; None where there is none."""
    path = Path(*name.split("."))
    return next((each.resolve() for each in (path / "__init__.py", path.with_suffix(".py")) if each.is_file()), None)


def _file_of(module: ModuleType) -> Path | None:
    file = getattr(module, "__file__", None)
    return None if file is None else Path(file).resolve()


def _registration(component: object) -> tuple[str, str, Callable[..., Any]] | None:
    """Kind and name under which a class, a function or what it made is registered, where it is a user's own; and itself."""
    classes = component.__mro__ if inspect.isclass(component) else (component, *type(component).__mro__)
    for each in REGISTRIES:
        for name, candidate in each.own().items():
            if any(candidate is one for one in classes):
                return each.kind, name, candidate
    return None


def _place(error: BaseException) -> tuple[str | None, object, bool]:
    """Where the innermost line of an error is that is the user's own, as file:line; the component that it is part of; and
    whether it is raised there, not in a library.
    """
    tops = {name.split(".")[0] for name in _IMPORTED} - {"ldm_privacy"}
    tops |= {component.__module__.split(".")[0] for each in REGISTRIES for component in each.own().values()} - {"__main__"}
    place, nearest, trace, is_inside, is_last = None, None, error.__traceback__, False, False
    while trace is not None:
        frame, module = trace.tb_frame, str(trace.tb_frame.f_globals.get("__name__"))
        is_plugin = module.split(".")[0] in tops
        is_inside |= is_plugin
        is_written = not frame.f_code.co_filename.startswith("<")
        is_last = is_written and (is_plugin or (is_inside and not _is_library(module, frame.f_code.co_filename)))
        if is_last:
            place, nearest = _shown(frame.f_code.co_filename, trace.tb_lineno), _component_at(frame, module) or nearest
        trace = trace.tb_next
    if isinstance(error, SyntaxError) and error.filename and not _is_library("", error.filename):
        place = _shown(error.filename, error.lineno)
    return place, nearest, is_last


def _component_at(frame: FrameType, module: str) -> object:
    """The user's own component whose code runs in a frame, or whose file it is where that holds one alone."""
    mine = [each for table in REGISTRIES for each in table.own().values() if each.__module__ == module]
    name = frame.f_code.co_qualname
    itself = frame.f_locals.get("self")
    if itself is not None and _registration(itself) is not None:
        return itself
    within = [each for each in mine if f"{name}.".startswith(f"{each.__qualname__}.")]
    return within[0] if within else (mine[0] if len(mine) == 1 else None)


def _is_library(module: str, file: str) -> bool:
    """Whether a frame is Python's, an installed package's or this program's."""
    if module.split(".")[0] == "ldm_privacy":
        return True
    path = Path(file).resolve()
    is_installed = "site-packages" in path.parts or "dist-packages" in path.parts
    return is_installed or path.is_relative_to(Path(sysconfig.get_path("stdlib")).resolve())


def _definition(component: Callable[..., Any]) -> str | None:
    try:
        return _shown(inspect.getsourcefile(component) or "", inspect.getsourcelines(component)[1])
    except (OSError, TypeError):
        return None


def _shown(file: str | Path, line: int | None = None) -> str:
    """A file below the working directory from there, another whole; with the line."""
    path, here = Path(file).resolve(), Path.cwd()
    shown = path.relative_to(here) if path.is_relative_to(here) else path
    return str(shown) if line is None else f"{shown}:{line}"


def _line(error: BaseException) -> str:
    """Kind and words of an error in one line."""
    kind, words = type(error).__name__, reason_of(SyntaxError(error.msg) if isinstance(error, SyntaxError) else error)
    if words == kind and isinstance(error, NotImplementedError):
        *_, (frame, _) = traceback.walk_tb(error.__traceback__)
        words = f"it lacks '{frame.f_code.co_name}'"
    whole = kind if words == kind else f"{kind}: {words}"
    return whole if len(whole) <= _MAX_LENGTH else f"{whole[:_MAX_LENGTH]}..."
