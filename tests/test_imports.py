"""The house: imports go to rooms that stand earlier, and each library is imported only where it belongs."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

ROOMS = [
    *("errors", "commands", "registry", "plugins", "types", "randomness", "diffusion", "processes", "device"),
    *("metrics", "geometry", "sampling", "models", "losses", "quality", "attacks", "calibrations", "data", "pictures"),
    *("targets", "testing", "audit", "controls", "trajectories", "training", "watch", "evidence", "report", "runs"),
    *("callbacks", "config", "sweeps", "recipes"),
]
"""In this order: a module imports from its own room and from earlier ones."""
LIBRARIES = {
    "diffusers": {"models", "recipes", "targets", "training"},
    "transformers": {"models", "targets"},
    "peft": {"targets"},
    "tokenizers": {"models"},
    "datasets": {"data"},
    "omegaconf": {"config"},
    "lightning": {"callbacks", "recipes", "runs", "training"},
    "wandb": {"runs"},
    "jinja2": {"report"},
    "optuna": {"sweeps"},
    "submitit": {"sweeps"},
    "opacus": {"training"},
}


def rooms_and_libraries(path: Path) -> tuple[set[str], set[str]]:
    """Rooms of the package and first names of libraries that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert not node.level, f"{path}: a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    parts = [name.split(".") for name in names]
    rooms = {each[1] for each in parts if each[0] == "ldm_privacy" and len(each) > 1}
    assert not any(each[0] == "callbacks" for each in parts), f"{path}: callbacks are imported as ldm_privacy.callbacks"
    return {room for room in rooms if room in ROOMS}, {each[0] for each in parts} - {"ldm_privacy"}


def room_of(path: Path) -> str:
    return path.relative_to(ROOT / "ldm_privacy").parts[0].removesuffix(".py")


FILES = sorted({*(ROOT / "ldm_privacy").rglob("*.py"), *(ROOT / "ldm_privacy" / "callbacks").glob("*.py")})


def test_every_room_has_its_place_and_every_place_a_room():
    assert {room_of(path) for path in FILES} == {*ROOMS, "__init__"}
    assert len(ROOMS) == len(set(ROOMS))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_to_earlier_rooms(path):
    rooms, libraries = rooms_and_libraries(path)
    room = room_of(path)
    if room == "__init__":
        assert not rooms
        assert not libraries
        return
    later = [other for other in rooms if ROOMS.index(other) > ROOMS.index(room)]
    assert not later, f"{room} imports {later}"
    for library, allowed in LIBRARIES.items():
        assert library not in libraries or room in allowed, f"{room} imports {library}"
    if room == "config":
        assert rooms <= {"config", "errors", "plugins", "registry"}
    else:
        assert "config" not in rooms or room == "recipes", f"{room} imports config"


def test_callbacks_are_lightnings_and_do_not_import_each_other():
    from lightning.pytorch import Callback

    import ldm_privacy.callbacks

    for name in ldm_privacy.callbacks.__all__:
        component = getattr(ldm_privacy.callbacks, name)
        assert issubclass(component, Callback | Exception), name
    for path in (ROOT / "callbacks").glob("*.py"):
        if path.stem != "__init__":
            assert "callbacks" not in rooms_and_libraries(path)[0], path


def test_entry_points_are_short_and_import_the_recipes_alone():
    for name in ("train.py", "evaluate.py"):
        path = ROOT / name
        assert len(path.read_text().splitlines()) <= 80, name
        rooms, libraries = rooms_and_libraries(path)
        assert rooms == {"recipes"}
        assert libraries == {"sys"}
