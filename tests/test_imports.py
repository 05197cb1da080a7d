"""The house: imports go down, and each library is imported only where it belongs."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

FLOORS = {
    0: ("errors", "registry", "types"),
    1: ("randomness", "diffusion", "geometry", "metrics", "onset"),
    2: ("attacks", "controls", "models", "data", "testing"),
    3: ("audit", "evidence", "report", "config"),
    4: ("training",),
    5: ("assemble", "check", "measure", "plan", "publish"),
}
FLOOR_OF = {name: floor for floor, names in FLOORS.items() for name in names}
# Not callbacks themselves: they put callbacks together, for train.py.
WIRING = ("__init__", "begin", "runner", "baselines", "autoencoder_stage", "denoiser_stage", "conclude")
# Siblings that may see each other, in this direction only.
WITHIN = {
    ("registry", "errors"),
    ("diffusion", "randomness"),
    ("geometry", "randomness"),
    ("metrics", "randomness"),
    ("onset", "metrics"),
    ("testing", "attacks"),
    ("evidence", "audit"),
    ("report", "audit"),
    ("report", "evidence"),
    ("check", "assemble"),
    ("measure", "assemble"),
    ("publish", "assemble"),
    ("publish", "check"),
    ("publish", "measure"),
    ("plan", "assemble"),
    ("plan", "check"),
}
LIBRARIES = {
    "diffusers": {"models", "training", "assemble"},
    "datasets": {"data"},
    "omegaconf": {"config"},
    "lightning": {"data", "training"},
    "wandb": {"training"},
    "jinja2": {"report"},
}


def imported(path: Path) -> set[str]:
    """Dotted names that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return names


def rooms(names: set[str]) -> set[str]:
    return {name.split(".")[1] for name in names if name.startswith("ldm_privacy.") and name.split(".")[1] in FLOOR_OF}


LIBRARY_FILES = sorted((ROOT / "ldm_privacy").rglob("*.py"))


@pytest.mark.parametrize("path", LIBRARY_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down(path):
    room = path.relative_to(ROOT / "ldm_privacy").parts[0].removesuffix(".py")
    if room == "__init__":
        return
    assert room in FLOOR_OF, f"{room} has no floor"
    for other in rooms(imported(path)) - {room}:
        assert FLOOR_OF[other] < FLOOR_OF[room] or (room, other) in WITHIN, f"{room} imports {other}"
    for library, allowed in LIBRARIES.items():
        if any(name.split(".")[0] == library for name in imported(path)):
            assert room in allowed, f"{room} imports {library}"


def test_no_library_module_imports_callbacks():
    for path in LIBRARY_FILES:
        assert not any(name.split(".")[0] == "callbacks" for name in imported(path)), path


def test_only_the_assembly_sees_config():
    for path in LIBRARY_FILES:
        room = path.relative_to(ROOT / "ldm_privacy").parts[0].removesuffix(".py")
        assert room in ("config", "assemble", "check", "measure", "plan", "publish") or "config" not in rooms(imported(path)), (
            path
        )


def test_callbacks_do_not_import_each_other():
    for path in (ROOT / "callbacks").glob("*.py"):
        if path.stem not in WIRING:
            assert not any(name.split(".")[0] == "callbacks" for name in imported(path)), path


def test_entry_points_are_short():
    for name in ("train.py", "evaluate.py"):
        assert len((ROOT / name).read_text().splitlines()) <= 80, name
