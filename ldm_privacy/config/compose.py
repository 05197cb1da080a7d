"""From an entry file, its groups and the command line to one checked config."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from ldm_privacy.config.check import check_keys, check_section
from ldm_privacy.config.schema import Config, EvaluationConfig
from ldm_privacy.errors import UserError, reason_of
from ldm_privacy.plugins import check_plugins, import_plugins, plugin_names
from ldm_privacy.registry import nearest_name

C = TypeVar("C", bound=EvaluationConfig, covariant=True)

CONFIG_DIR = Path(__file__).parents[1] / "configs"
FOR_TARGETS = "audit.yaml"
"""The entry that trains nothing: what is audited was trained elsewhere."""
RESUMABLE = (
    "trainer.",
    "audit.",
    "gate",
    "geometry.",
    "watch.",
    "wandb.",
    "loggers",
    "data.source.",
    "data.memory_gib",
    "plugins",
    "base",
    "autoencoder.network.path",
)
"""What a resumed run may change."""


@dataclass
class Composed(Generic[C]):
    """A checked config and the plain tree that it came from, as it is written beside the run."""

    config: C
    tree: dict[str, Any]

    def to_yaml(self) -> str:
        """The resolved tree as YAML."""
        return as_yaml(self.tree)


def entry_files() -> list[Path]:
    """The configs that can be named on the command line."""
    return sorted(CONFIG_DIR.glob("*.yaml"))


def compose(entry: str, overrides: Sequence[str] = ()) -> Composed[Config]:
    """Load an entry file (a name in configs/ or a path), its `defaults:` groups, then key=value overrides.

    Raises UserError: no such file, an unknown key at any depth, a wrong type.
    """
    return finish(read_entry(entry, overrides), Config)


def read_entry(
    entry: str, overrides: Sequence[str] = (), schema: type[EvaluationConfig] = Config, *, is_whole: bool = True
) -> dict[str, Any]:
    """The first half of `compose`: the tree, of which all is known to be right that needs no import (`check_keys`)."""
    path = find_entry(entry)
    tree = read_yaml(path)
    groups = tree.pop("defaults", [])
    if not isinstance(groups, list):
        raise UserError(f"{path}: defaults: expected a list of group files like data/digits, got {groups!r}.")
    merged: dict[str, Any] = {"name": path.stem}
    for group in groups:
        merged = merge(merged, _read_group(path, str(group)))
    merged = merge(merge(merged, tree), parse_overrides(overrides))
    check_sections(merged, schema, is_whole=is_whole)
    return merged


def check_sections(tree: Mapping[str, Any], schema: type[EvaluationConfig] = Config, *, is_whole: bool = False) -> None:
    """Raise UserError as `check_keys`, or for plug-ins that are not there."""
    check_keys(schema, tree, is_whole=is_whole, has_plugins=bool(check_plugins(tree.get("plugins"))))


def stored_tree(text: str) -> dict[str, Any]:
    """The config that a checkpoint carries, as a plain tree.

    Raises UserError: no YAML, or an interpolation, which could read the environment (what a run stores is resolved).
    """
    if "${" in text:
        raise UserError("ckpt: the stored config holds an interpolation (${...}), which no run writes. Use another checkpoint.")
    try:
        stored = OmegaConf.to_container(OmegaConf.create(text))
    except (OmegaConfBaseException, YAMLError) as error:
        raise UserError(f"ckpt: the stored config is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(stored, dict):
        raise UserError("ckpt: the stored config has no keys and values. Use another checkpoint.")
    return {str(key): value for key, value in stored.items()}


def compose_stored(text: str, overrides: Sequence[str] = ()) -> Composed[Config]:
    """The config that a checkpoint carries, with overrides on top.

    A checkpoint is not trusted: plug-ins that its config names are imported only where the overrides name them as well (and
    others, if they like). Raises UserError as `compose` and `stored_tree`, and for a plug-in that the overrides don't name.
    """
    stored = stored_tree(text)
    over = parse_overrides(overrides)
    plugins = stored.get("plugins") or []
    wanted = [str(each) for each in (plugins if isinstance(plugins, list) else [plugins])]
    if not {*wanted} <= {*plugin_names(over.get("plugins"))}:
        names = ",".join(wanted)
        raise UserError(f"ckpt: its config wants to import {names}; if you trust it, say so with plugins=[{names}].")
    return finish(merge(stored, over), Config)


def finish(tree: dict[str, Any], schema: type[C]) -> Composed[C]:
    """Resolve interpolations, import plug-ins, check everything."""
    try:
        resolved = OmegaConf.to_container(OmegaConf.create(tree), resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(f"config: {reason_of(error)}") from None
    assert isinstance(resolved, dict)
    plain = {str(key): value for key, value in resolved.items()}
    check_sections(plain, schema)
    import_plugins(plain.get("plugins"))
    check_keys(schema, plain, has_plugins=False)  # a name that nobody brought, before what has the others is imported
    return Composed(check_section(schema, plain), plain)


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` on top of `base`. Where a component's class changes, the old class's arguments go with it."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            changed = "class" in value and value["class"] != below.get("class")
            result[key] = dict(value) if changed else merge(below, value)
        else:
            result[key] = value
    return result


def differences(now: Mapping[str, Any], then: Mapping[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Dotted key -> both values, where two trees differ."""
    found: dict[str, tuple[Any, Any]] = {}
    for key in {**now, **then}:
        mine, theirs = now.get(key), then.get(key)
        if isinstance(mine, Mapping) and isinstance(theirs, Mapping):
            found |= differences(mine, theirs, f"{prefix}{key}.")
        elif mine != theirs:
            found[f"{prefix}{key}"] = (mine, theirs)
    return found


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """key=value strings as a nested tree; values are YAML."""
    for item in overrides:
        key, separator, _ = item.partition("=")
        if not separator or not key or key.startswith("-"):
            raise UserError(f"'{item}': expected key=value, as in trainer.max_epochs=50. See --help.")
    try:
        tree = OmegaConf.to_container(OmegaConf.from_dotlist(list(overrides)))
    except (OmegaConfBaseException, YAMLError) as error:
        _check_values(overrides)
        raise UserError(f"command line: {reason_of(error)}") from None
    except (TypeError, ValueError, IndexError) as error:  # a key below another key that was given a list or a number
        _check_values(overrides)
        raise UserError(f"command line: two of the keys contradict each other ({reason_of(error)}).") from None
    assert isinstance(tree, dict)
    return {str(key): value for key, value in tree.items()}


def _check_values(overrides: Sequence[str]) -> None:
    """Raise UserError that names the first whose value is no YAML."""
    for item in overrides:
        try:
            OmegaConf.from_dotlist([item])
        except (OmegaConfBaseException, YAMLError) as error:
            key, _, value = item.partition("=")
            reason = reason_of(error)
            raise UserError(f"{item}: what it gives is no YAML ({reason}); a text is quoted as {key}='\"{value}\"'.") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file as a plain tree, interpolations unresolved."""
    try:
        tree = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: can't be read ({error}).") from None
    except (OmegaConfBaseException, YAMLError) as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path}: expected keys and values.")
    return {str(key): value for key, value in tree.items()}


def as_yaml(tree: Mapping[str, Any]) -> str:
    """A plain tree as YAML, its interpolations as they are."""
    return OmegaConf.to_yaml(OmegaConf.create(dict(tree)))


def find_entry(entry: str) -> Path:
    """The entry file of that name in configs/, or at that path."""
    for candidate in (Path(entry), CONFIG_DIR / entry, CONFIG_DIR / f"{entry}.yaml"):
        if candidate.is_file():
            return candidate
    names = [path.name for path in entry_files()]
    raise UserError(f"no config '{entry}'.{nearest_name(entry, names)} In configs/: {', '.join(names)}.")


def _read_group(entry: Path, group: str) -> dict[str, Any]:
    for path in (folder / f"{group}.yaml" for folder in (entry.parent, CONFIG_DIR)):
        if path.is_file():
            tree = read_yaml(path)
            if "defaults" in tree:
                raise UserError(f"{path}: a group file can't have defaults of its own.")
            return {group.split("/")[0]: tree}
    files = [path for path in CONFIG_DIR.glob("*/*.yaml") if path.parent.name != "sweeps"]
    known = sorted(str(path.relative_to(CONFIG_DIR).with_suffix("")) for path in files)
    raise UserError(f"{entry}: defaults: no group '{group}'.{nearest_name(group, known)} There are: {', '.join(known)}.")
