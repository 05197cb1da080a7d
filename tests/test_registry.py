"""Names for components: found in the files, imported when asked for."""

import subprocess
import sys
from pathlib import Path

import pytest

from ldm_privacy.errors import UserError
from ldm_privacy.registry import ATTACKS, IMAGE_SOURCES, INFLUENCE_ESTIMATORS, MASK_RULES, Registry


@pytest.fixture
def registry():
    registry = Registry("ANIMALS", "animal", "no such room")

    @registry.register("horse")
    class Horse:
        pass

    return registry


def test_unknown_name_names_the_nearest_and_all(registry):
    with pytest.raises(UserError, match=r"unknown animal 'hrose'\. Did you mean 'horse'\? Known: horse\."):
        registry.get("hrose")


def test_a_taken_name_is_refused(registry):
    with pytest.raises(UserError, match="'horse' is already registered"):

        @registry.register("horse")
        class Zebra:
            pass

    assert registry.get("horse").__name__ == "Horse"


def test_registering_the_same_class_again_is_no_error(registry):
    registry.register("horse")(registry.get("horse"))
    assert list(registry) == ["horse"]


def test_names_are_found_without_importing_what_they_name():
    program = """
import sys
from ldm_privacy.registry import ATTACKS, IMAGE_SOURCES, MASK_RULES
assert {"sima", "loss", "secmi"} <= set(ATTACKS) and "digits" in IMAGE_SOURCES and "top" in MASK_RULES
loaded = [name for name in sys.modules if name.startswith("ldm_privacy.") or name in ("torch", "numpy", "datasets")]
assert loaded == ["ldm_privacy.errors", "ldm_privacy.registry"], loaded
import ldm_privacy.audit.score_file, ldm_privacy.watch.onset
assert ATTACKS.get("sima").__module__ == "ldm_privacy.attacks.sima"
heavy = {"datasets", "sklearn", "pandas", "pyarrow", "matplotlib", "lightning", "diffusers"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[1])


@pytest.mark.parametrize("registry", [ATTACKS, IMAGE_SOURCES, INFLUENCE_ESTIMATORS, MASK_RULES], ids=lambda each: each.variable)
def test_every_name_in_the_files_is_that_of_a_component(registry):
    assert list(registry)
    for name in registry:
        assert registry.get(name).__module__ == registry._built_in[name]


@pytest.mark.parametrize("module", ["plug_in", "ldm_privacy.attacks.sima_mc", "ldm_privacy.attacks"])
def test_the_name_of_a_built_in_component_is_taken_before_it_was_imported(module):
    attacks = Registry("ATTACKS", "attack", "attacks")
    with pytest.raises(UserError, match=r"attack 'sima' is already registered by ldm_privacy\.attacks\.sima; choose"):
        attacks.register("sima")(type("SimA", (), {"__module__": module}))
    mine = type("SimA", (), {"__module__": "ldm_privacy.attacks.sima"})
    assert attacks.register("sima")(mine) is attacks.get("sima") is mine
    # Afterwards it is taken by that class, not by whatever else its file may hold.
    with pytest.raises(UserError, match=r"already registered by ldm_privacy\.attacks\.sima\.SimA; choose"):
        attacks.register("sima")(type("SimAlike", (), {"__module__": "ldm_privacy.attacks.sima"}))
