"""Checking config nodes against the signature of what they build: unknown keys, missing keys, wrong types."""

import inspect
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import partial
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from ldm_privacy.errors import UserError, under
from ldm_privacy.plugins import blamed_on
from ldm_privacy.registry import Registry, nearest_name

T = TypeVar("T")


@dataclass(frozen=True)
class Component:
    """A registered class by name, with the constructor arguments that the config gives, and the key where they stand."""

    registry: Registry
    name: str
    arguments: dict[str, Any]
    key: str = ""

    def build(self, **provided: Any) -> Any:
        """Call the registered class; of `provided` (seed, ...) it gets those that it takes and the config doesn't give.

        Raises UserError with the key in front, where the class raises one.
        """
        maker = self.registry.maker(self.name)
        try:
            with blamed_on(self.registry.get(self.name)):
                return maker(**{**self.taken(provided), **self.arguments})
        except UserError as error:
            raise type(error)(under(self.key, str(error), inspect.signature(maker).parameters)) from error

    def build_a(self, base: type[T], /, **provided: Any) -> T:
        """As `build`. Raises TypeError where the result is no `base`."""
        made = self.build(**provided)
        with blamed_on(self.registry.get(self.name)):
            if not isinstance(made, base):
                raise TypeError(f"it makes a {type(made).__name__}, which is no {base.__module__}.{base.__name__}")
        return made

    def taken(self, provided: Mapping[str, Any]) -> dict[str, Any]:
        """Those of `provided` that it takes, but for those whose own defaults its class keeps: named in its tuple `keeps`."""
        accepted = inspect.signature(self.registry.maker(self.name)).parameters
        kept = getattr(self.registry.get(self.name), "keeps", ())
        return {name: value for name, value in provided.items() if name in accepted and name not in kept}


def check_component(node: Any, key: str, registry: Registry, *, provided: Iterable[str] = ()) -> Component:
    """A config node {class: name, argument: value, ...} as a Component, or UserError.

    Args:
        node: A mapping, or just the name as a string.
        key: Where it stands, for messages ("denoiser.network").
        registry: What may stand there.
        provided: Arguments that the program gives itself; the config may not.
    """
    if isinstance(node, str):
        node = {"class": node}
    if not isinstance(node, Mapping):
        raise UserError(f"{key}: expected 'class: NAME' with its arguments, got {node!r}.")
    if not isinstance(node.get("class"), str):
        raise UserError(f"{key}.class: missing. Name one of: {', '.join(registry)}.")
    name = node["class"]
    try:
        target = registry.maker(name)
    except UserError as error:
        raise UserError(f"{key}.class: {error}") from None
    arguments = {argument: value for argument, value in node.items() if argument != "class"}
    with blamed_on(registry.get(name)):
        for argument in [each for each in arguments if each not in {*inspect.signature(target).parameters, *provided}]:
            if takers := [other for other in registry if argument in inspect.signature(registry.maker(other)).parameters]:
                raise UserError(
                    f"{join(key, str(argument))}: '{name}' takes no such key; it belongs to {', '.join(takers)}. Name the "
                    f"class, as in {key}.class={takers[0]}."
                )
        return Component(registry, name, check_arguments(target, arguments, key, hidden=frozenset(provided)), key)


def check_arguments(
    target: Callable[..., Any], arguments: Mapping[str, Any], key: str, *, hidden: frozenset[str] = frozenset()
) -> dict[str, Any]:
    """Arguments with their types checked (an int where a float is wanted is converted), or UserError naming the key."""
    parameters = {
        name: parameter
        for name, parameter in inspect.signature(target).parameters.items()
        if name not in hidden and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    }
    hints = typing.get_type_hints(target.__init__ if inspect.isclass(target) else target, include_extras=True)
    checked = {}
    for name, value in arguments.items():
        if name not in parameters:
            raise unknown_key(key, str(name), parameters)
        checked[name] = check_type(value, hints.get(name, Any), join(key, name))
    for name, parameter in parameters.items():
        if parameter.default is inspect.Parameter.empty and name not in checked:
            raise UserError(f"{join(key, name)}: missing; it has no default. Add it to the config or to the command line.")
    return checked


def check_type(value: Any, annotation: Any, key: str) -> Any:
    """The value as the annotated type, or UserError that names the key, the value and the type.

    No number, at any depth, may be nan, infinite or past 64 bits, whatever the type allows.
    """
    adapter: TypeAdapter[Any]
    try:
        adapter = TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))
    except Exception:  # pydantic can't take a config beside some types; they need none
        adapter = TypeAdapter(annotation)
    try:
        checked = adapter.validate_python(value)
    except UserError as error:
        parent, _, name = key.rpartition(".")
        raise UserError(under(parent, str(error), (name,))) from error
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Input ").split(", unable")[0].split(", got a number")[0]
        if error.errors()[0]["type"] == "string_type" and isinstance(value, int | float):  # what YAML reads it as
            reason += f'; quote it: \'"{value}"\' on the command line, "{value}" in a file'
        raise UserError(f"{key}: {value!r} {reason}.") from None
    if (wrong := next((each for each in _numbers([value, checked]) if not abs(each) < 2**63), None)) is not None:
        raise UserError(f"{key}: {wrong} is no finite number that fits into 64 bits.")
    return checked


def _numbers(value: Any) -> Iterator[float]:
    """Every number in a value of a config."""
    if isinstance(value, int | float):
        yield value
    elif isinstance(value, Mapping | list):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _numbers(each)


def check_keys(schema: type, node: Any, key: str = "", *, is_whole: bool = False, has_plugins: bool = True) -> None:
    """Raise UserError for what can be known of a config without importing anything.

    That is: a key that no section has, a plain value of another type, where the config `is_whole` a key that is missing, the
    name of a component that isn't there where no plug-in can bring it, and whatever a section's own `check_together(given)`
    raises. Interpolations aren't looked into.
    """
    if not isinstance(node, Mapping):
        raise UserError(f"{key or 'config'}: expected keys and values, got {node!r}.")
    assert is_dataclass(schema)
    known = {field.name: field for field in fields(schema)}
    hints = typing.get_type_hints(schema, include_extras=True)
    for name, value in node.items():
        if name not in known:
            raise unknown_key(key, str(name), known)
        field, path = known[name], join(key, str(name))
        if "registry" in field.metadata:
            registry, many = field.metadata["registry"], field.metadata["many"]
            components = {f"{path}.{label}": each for label, each in labelled(value, path).items()} if many else {path: value}
            for where, component in components.items() if not has_plugins else ():
                named = component.get("class") if isinstance(component, Mapping) else component
                if isinstance(named, str) and "${" not in named and named not in registry:
                    raise UserError(f"{where}.class: {registry.unknown(named)}")
        elif is_dataclass(hints[name]):
            check_keys(typing.cast(type, hints[name]), value, path, is_whole=is_whole, has_plugins=has_plugins)
        elif "${" not in str(value):
            check_type(value, hints[name], path)
            for each in value if "names" in field.metadata and not has_plugins else ():
                if each not in field.metadata["names"]:
                    raise UserError(f"{path}: {field.metadata['names'].unknown(each)}")
    if is_whole:
        check_complete(schema, node, key)
    if (check_together := getattr(schema, "check_together", None)) is not None:
        check_together(node)


def check_complete(schema: type, given: Mapping[str, Any], key: str) -> None:
    """Raise UserError for a key that has no default and isn't given."""
    for field in fields(typing.cast(Any, schema)):
        if field.name not in given and field.default is MISSING and field.default_factory is MISSING:
            raise UserError(f"{join(key, field.name)}: missing. Add it to the config or to the command line.")


def check_section(schema: type, node: Any, key: str = "") -> Any:
    """A mapping, whose keys were checked, as an instance of a dataclass of the schema, checked at every depth.

    Fields whose type is itself a dataclass are sections; fields with metadata "registry" are components, with metadata
    "registry" and "many" mappings from label to component.
    """
    assert is_dataclass(schema)
    known = {field.name: field for field in fields(schema)}
    hints = typing.get_type_hints(schema, include_extras=True)
    values: dict[str, Any] = {}
    for name, value in node.items():
        field, path = known[name], join(key, str(name))
        if is_dataclass(hints[name]) and "registry" not in field.metadata:
            values[name] = check_section(typing.cast(type, hints[name]), value, path)
        elif "registry" in field.metadata:
            check = partial(check_component, registry=field.metadata["registry"], provided=field.metadata["provided"])
            if field.metadata["many"]:
                values[name] = {label: check(child, f"{path}.{label}") for label, child in labelled(value, path).items()}
            else:
                values[name] = check(value, path)
        else:
            values[name] = check_type(value, hints[name], path)
    check_complete(schema, values, key)
    return schema(**values)


def labelled(value: Any, key: str) -> dict[str, Any]:
    """Components by label: a mapping (null takes one out), or a list of names that are their own labels."""
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return {name: name for name in value}
    if not isinstance(value, Mapping):
        raise UserError(f"{key}: expected label: component, or a list of names, got {value!r}.")
    return {str(label): child for label, child in value.items() if child is not None}


def unknown_key(key: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a key that nothing there takes."""
    names = list(known)
    return UserError(f"{key or 'config'}: unknown key '{name}'.{nearest_name(name, names)} Valid keys: {', '.join(names)}.")


def join(key: str, name: str) -> str:
    """'audit' and 'masks' -> 'audit.masks'."""
    return f"{key}.{name}" if key else name
