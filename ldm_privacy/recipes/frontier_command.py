"""`ldm-privacy frontier`: which runs are meant. Nothing heavy is imported before that is known."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ldm_privacy.config.compose import read_yaml
from ldm_privacy.errors import UserError
from ldm_privacy.recipes.terminal import tell
from ldm_privacy.registry import nearest_name
from ldm_privacy.runs.folder import check_writable

USAGE = """ldm-privacy frontier sweeps/digits_beta [out=FOLDER]
                                       AUROC against quality: what a sweep has trained so far
ldm-privacy frontier plain=runs/a,runs/b whitened=runs/c,runs/d [baseline=plain] [out=FOLDER]
                                       the same of runs that are named, a setting each; the baseline is the first by default"""


class Meant(NamedTuple):
    """Runs by setting; what sets each apart, where that is known; the baseline; the name of all."""

    runs: Mapping[str, Sequence[Path]]
    overrides: Mapping[str, Sequence[str]]
    baseline: str
    name: str


def frontier(arguments: list[str]) -> int:
    """Write and print the frontier of a sweep, or of runs that are named; returns the exit code."""
    if not arguments or {"-h", "--help"} & {*arguments}:
        tell(USAGE)
        return 0
    words, rest = dict[str, str](), list[str]()
    for item in arguments:
        key, is_pair, value = item.partition("=")
        if is_pair and key in ("out", "baseline"):
            words[key] = value
        else:
            rest.append(item)
    is_sweep = len(rest) == 1 and (Path(rest[0]).exists() or "=" not in rest[0])
    meant = _sweep(Path(rest[0])) if is_sweep else _named(rest, Path(words.get("out", "frontier")))
    baseline = words.get("baseline", meant.baseline)
    if baseline not in meant.runs:
        there = ", ".join(meant.runs)
        raise UserError(f"baseline: there is no '{baseline}'.{nearest_name(baseline, list(meant.runs))} There are: {there}.")
    out = Path(words.get("out", rest[0] if is_sweep else "frontier"))
    check_writable(out, "out")
    from ldm_privacy.evidence.frontier import Cell
    from ldm_privacy.recipes.frontier import write_frontier

    cells = {
        label: Cell(label, tuple(meant.overrides.get(label, ())), label == baseline, tuple(runs))
        for label, runs in meant.runs.items()
    }
    write_frontier(meant.name, cells, out, shown=True)
    return 0


def _sweep(folder: Path) -> Meant:
    """The runs of a sweep, begun or not."""
    file = folder / "sweep.yaml"
    if not file.is_file():
        raise UserError(
            f"{folder}: no sweep: it has no sweep.yaml. Name a folder like sweeps/digits_beta, or runs as label=run,run."
        )
    tree = read_yaml(file)
    try:
        cells = {str(label): [str(each) for each in overrides] for label, overrides in tree["cells"].items()}
        runs = {label: [folder / "trials" / label / f"seed-{seed}" for seed in tree["seeds"]] for label in cells}
        return Meant(runs, cells, str(tree["baseline"]), str(tree["name"]))
    except (KeyError, TypeError, AttributeError):
        raise UserError(f"{file}: not what a sweep writes there; run the sweep again, or name runs as label=run,run.") from None


def _named(items: Sequence[str], out: Path) -> Meant:
    """Runs by label; a label comes once."""
    runs: dict[str, list[Path]] = {}
    for item in items:
        label, is_pair, paths = item.partition("=")
        if not is_pair or not label or not paths:
            raise UserError(f"'{item}': name runs as label=run,run, or a sweep's folder alone.")
        if label in runs:
            raise UserError(f"'{label}' stands twice; name all runs of a setting together: {label}=run,run.")
        runs[label] = [Path(path) for path in paths.split(",") if path]
        for path in runs[label]:
            if not (path / "config.yaml").is_file():
                raise UserError(f"{path}: no run: it has no config.yaml. Name a folder like runs/digits.")
    return Meant(runs, {}, next(iter(runs)), out.absolute().name)
