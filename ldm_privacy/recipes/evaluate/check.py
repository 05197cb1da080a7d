"""What can be known of an evaluation before anything is loaded: which words it takes, and whether they go together."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ldm_privacy.config.command_line import CommandLine, allow_only
from ldm_privacy.config.compose import FOR_TARGETS, check_sections, parse_overrides, read_entry
from ldm_privacy.config.schema import TargetConfig
from ldm_privacy.errors import UserError
from ldm_privacy.recipes.gate_check import check_gate, check_gate_files
from ldm_privacy.runs.folder import check_name, check_writable
from ldm_privacy.targets.place import check_is_there, check_may_be_target, target_name

OURS = (".ckpt", ".parquet")
"""What files of this program end with."""
BESIDE = ("base", "layout", "reference")
"""Folders and files that may stand beside a target."""
CHECKPOINT_KEYS = ("audit.", "autoencoder.network.path", "base", "data.", "gate", "geometry.", "trainer.", "watch.", "plugins")
TARGET_KEYS = ("audit.", "data.", "gate", "geometry.", "trainer.", "watch.", "target.", "plugins", "name", "seed", "output_dir")

SPLIT_KEYS = tuple(
    f"data.{key}"
    for key in (
        *("num_members", "num_heldout", "num_public", "index_file", "group_column", "resolution", "channels", "seed"),
        *("split", "repeats"),
    )
)


class TargetWords(NamedTuple):
    """An evaluation of targets that were not trained here: the config, what lies beside them by word, each one's name."""

    tree: dict[str, Any]
    beside: dict[str, Path]
    names: dict[Path, str]


def check_ours(line: CommandLine, path: Path) -> dict[str, Any]:
    """The tree of what overrides a checkpoint's config. Raises UserError for what a checkpoint at `path` doesn't take."""
    if "layout" in line.words:
        raise UserError(f"layout: {path} is a checkpoint of this program, which takes none.")
    if base := line.words.get("base"):  # where what was fine-tuned lies now
        line.overrides.append(f"base={base}")
    why = "the checkpoint brings its own networks and split (audit.max_samples limits the audited samples)"
    allow_only(line.overrides, CHECKPOINT_KEYS, why, refused=SPLIT_KEYS)
    tree = parse_overrides(line.overrides)
    check_sections(tree)
    check_gate_files(tree.get("gate") or {})
    return tree


def check_targets(line: CommandLine, paths: Sequence[Path], out: Path | None) -> TargetWords:
    """What is asked of those targets. Raises UserError for what can't be."""
    is_named = "name" in parse_overrides(line.overrides) and len(paths) == 1
    for path in paths:
        check_is_there(path, "ckpt")
        if path.suffix == ".ckpt":
            raise UserError(f"--config: {path} is a checkpoint of this program, which brings its config; evaluate it alone.")
    beside = {word: Path(line.words[word]).expanduser() for word in BESIDE if line.words.get(word)}
    for word, path in beside.items():
        check_is_there(path, word)
    allow_only(line.overrides, TARGET_KEYS, "nothing is trained here", refused=("data.repeats", "data.flip"))
    tree = read_entry(line.config or FOR_TARGETS, line.overrides, TargetConfig, is_whole=False)
    names = {path: str(tree["name"]) if is_named else target_name(path) for path in paths}
    for name in names.values():
        check_name(name)
    if out is None:
        check_writable(Path(str(tree.get("output_dir", TargetConfig.output_dir))), "output_dir")
    else:
        check_writable(out, "out")
    check_gate(tree)
    if not tree.get("plugins"):  # which may bring other kinds of target
        for path in paths:
            check_may_be_target(path, beside)
    _check_data(tree)
    return TargetWords(tree, beside, names)


def _check_data(tree: Mapping[str, Any]) -> None:
    """Raise UserError where the config doesn't say which images, and which of them were trained on."""
    data = tree.get("data") or {}
    if not data.get("source"):
        raise UserError("data.source: missing; name the images, as in data.source.class=folder data.source.path=photos.")
    if not (file := data.get("index_file")):
        raise UserError(
            "data.index_file: missing; name an .npz file that says who is a member: mia_train_idxs are the rows of the images "
            "that were trained on, mia_eval_idxs those of images that were not."
        )
    if not Path(file).is_file():
        raise UserError(f"data.index_file: {file} does not exist.")
