"""What a sweep file says: which cells there are, and under which seeds each is trained."""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ldm_privacy.errors import UserError
from ldm_privacy.registry import nearest_name
from ldm_privacy.runs.folder import check_name

KEYS = ("name", "config", "seeds", "overrides", "grid", "cells", "baseline")
OWN = ("name", "seed", "output_dir", "wandb.group", "defaults")
"""Keys of a config that a sweep gives to each trial itself."""


@dataclass(frozen=True)
class Sweep:
    """A sweep file, read.

    Attributes:
        name: Of the sweep: its folder's, and its runs' group in W&B.
        config: Entry file that every trial begins with.
        seeds: Of every cell; a trial's seed decides its split too, which so is the same in every cell.
        overrides: Of every trial.
        cells: Label -> overrides of its own, which come after those of every trial. In the grid's order, the last axis fastest.
        baseline: Label of the cell that the others are compared with.
    """

    name: str
    config: str
    seeds: tuple[int, ...]
    overrides: tuple[str, ...]
    cells: Mapping[str, tuple[str, ...]]
    baseline: str


def read_sweep(tree: Mapping[str, Any], name: str, *, overrides: Sequence[str] = ()) -> Sweep:
    """The sweep that a file's keys and values say.

    An axis of the grid is `{key: KEY, values: [...]}` (labels `axis=value`) or `{label: [overrides], ...}`; the grid's
    cells are the product of its axes, their labels joined by "+". `cells: {label: [overrides]}` are further ones.

    Args:
        tree: Plain mappings, lists and values.
        name: Where the file gives none.
        overrides: Of every trial, after the file's own.

    Raises:
        UserError: An unknown key, no cell, a label twice or one that can't be a folder's name, a baseline that is no cell.
    """
    for key in tree:
        if key not in KEYS:
            raise UserError(f"unknown key '{key}'.{nearest_name(str(key), KEYS)} Valid keys: {', '.join(KEYS)}.")
    if not isinstance(config := tree.get("config"), str):
        raise UserError("config: missing; name the entry file that every trial begins with, as in config: digits.yaml.")
    common = (*_overrides(tree.get("overrides"), "overrides"), *overrides)
    _refuse_own(common, "overrides")
    axes = {str(axis): _axis(node, f"grid.{axis}") for axis, node in _mapping(tree.get("grid"), "grid").items()}
    further = _mapping(tree.get("cells"), "cells")
    cells: dict[str, tuple[str, ...]] = {}
    for label, given in (*_product(axes), *((str(each), _overrides(further[each], f"cells.{each}")) for each in further)):
        try:
            check_name(label)
        except UserError:
            raise UserError(f"cell '{label}' can't be a folder's name; name its values: label: [overrides].") from None
        if label in cells:
            raise UserError(f"cells.{label}: a cell of the grid has that label; choose another.")
        _refuse_own(given, f"cell '{label}'")
        cells[label] = given
    if not cells:
        raise UserError("grid: empty; name an axis, as in beta: {key: autoencoder.losses.kl.weight, values: [1.0e-4, 1.0e-3]}.")
    own_name = str(tree.get("name") or name)
    check_name(own_name)
    return Sweep(own_name, config, _seeds(tree.get("seeds")), common, cells, _baseline(tree.get("baseline"), axes, cells))


def lock_folder(folder: Path, cell: str, seed: int) -> Path:
    """Where the lock of a trial of the sweep in that folder lies, and what it printed: output.log."""
    return folder / "logs" / cell / f"seed-{seed}"


def run_folder(folder: Path, cell: str, seed: int) -> Path:
    """The run of a trial of the sweep in that folder."""
    return folder / "trials" / cell / f"seed-{seed}"


def cell_file(folder: Path, cell: str) -> Path:
    """The config of a cell, as it was when it was enqueued."""
    return folder / "cells" / f"{cell}.yaml"


def _axis(node: Any, key: str) -> dict[str, tuple[str, ...]]:
    """Label -> overrides, of one axis."""
    if isinstance(node, Mapping) and node.keys() == {"key", "values"}:
        values, name = node["values"], key.partition(".")[2]
        if not isinstance(values, list):
            raise UserError(f"{key}.values: expected a list of values, got {values!r}.")
        # JSON is YAML, and a text stays one.
        choices = [(value_label(name, value), _overrides([f"{node['key']}={json.dumps(value)}"], key)) for value in values]
    else:
        choices = [(str(label), _overrides(given, f"{key}.{label}")) for label, given in _mapping(node, key).items()]
    if not choices:
        raise UserError(f"{key}: empty; an axis is {{key: KEY, values: [...]}} or {{label: [overrides], ...}}.")
    if len(dict(choices)) < len(choices):
        twice = next(label for number, (label, _) in enumerate(choices) if label in dict(choices[:number]))
        raise UserError(f"{key}: {twice} stands twice; two cells would be the same.")
    return dict(choices)


def value_label(axis: str, value: Any) -> str:
    """("beta", .001) -> "beta=0.001"."""
    return f"{axis}={value if isinstance(value, str) else json.dumps(value)}"


def _product(axes: Mapping[str, Mapping[str, tuple[str, ...]]]) -> Iterator[tuple[str, tuple[str, ...]]]:
    for choice in itertools.product(*(axis.items() for axis in axes.values())) if axes else ():
        yield "+".join(label for label, _ in choice), tuple(item for _, given in choice for item in given)


def _baseline(node: Any, axes: Mapping[str, Mapping[str, Any]], cells: Mapping[str, Any]) -> str:
    """The label that the file names: by itself, or by a value of each axis; the first cell's where it names none."""
    if node is None:
        return next(iter(cells))
    if not isinstance(node, Mapping):
        label = str(node)
    elif {str(axis) for axis in node} != axes.keys():
        raise UserError(f"baseline: name one value of each axis ({', '.join(axes) or 'there is none'}), or a cell's label.")
    else:
        given = {str(axis): value for axis, value in node.items()}
        labels = {axis: (str(given[axis]), value_label(axis, given[axis])) for axis in axes}
        label = "+".join(next((each for each in labels[axis] if each in axes[axis]), labels[axis][1]) for axis in axes)
    if label not in cells:
        raise UserError(f"baseline: '{label}' is no cell.{nearest_name(label, list(cells))} There are: {', '.join(cells)}.")
    return label


def _seeds(node: Any) -> tuple[int, ...]:
    is_right = isinstance(node, list) and node and all(type(seed) is int and 0 <= seed < 2**63 for seed in node)
    if not is_right or len(set(node)) < len(node):
        raise UserError(f"seeds: expected different whole numbers, as in seeds: [0, 1, 2], got {node!r}.")
    return tuple(node)


def _overrides(node: Any, key: str) -> tuple[str, ...]:
    if node is None:
        return ()
    if not isinstance(node, list) or not all(isinstance(item, str) for item in node):
        raise UserError(f"{key}: expected a list of overrides, as in ['denoiser.channel_map=per_channel'], got {node!r}.")
    return tuple(node)


def _mapping(node: Any, key: str) -> Mapping[Any, Any]:
    if node is not None and not isinstance(node, Mapping):
        raise UserError(f"{key}: expected keys and values, got {node!r}.")
    return node or {}


def _refuse_own(overrides: Sequence[str], where: str) -> None:
    for item in overrides:
        if (key := item.partition("=")[0]) in OWN:
            raise UserError(f"{where}: '{key}' is given by the sweep to each trial (seeds: [...] says its seed); take it out.")
