"""Names for components."""

import pytest

from ldm_privacy.errors import UserError
from ldm_privacy.registry import Registry


@pytest.fixture
def registry():
    registry = Registry("animal")

    @registry.register("horse")
    class Horse:
        pass

    return registry


def test_unknown_name_names_the_nearest_and_all(registry):
    with pytest.raises(UserError, match=r"unknown animal 'hrose'\. Did you mean 'horse'\? Known: horse\."):
        registry.get("hrose")


def test_a_taken_name_is_refused(registry):
    with pytest.raises(ValueError, match="'horse' is already registered"):

        @registry.register("horse")
        class Zebra:
            pass

    assert registry.get("horse").__name__ == "Horse"


def test_registering_the_same_class_again_is_no_error(registry):
    registry.register("horse")(registry.get("horse"))
    assert list(registry) == ["horse"]
