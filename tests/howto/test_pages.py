"""Every kind of component has its page, and what the pages say of testing is true."""

import importlib
import inspect
import re

import pytest

from ldm_privacy.plugins import REGISTRIES
from tests.howto.conftest import DOCS, PAGES, commands, examples
from tests.test_imports import ROOMS


def test_every_registry_has_its_page_and_every_page_its_line_in_the_index():
    registered = {page.name: re.findall(r"^@([A-Z_]+)\.register\(", page.read_text(), re.MULTILINE) for page in PAGES}
    assert {each.variable for each in REGISTRIES} == {name for names in registered.values() for name in names}
    rows = [row.split("|") for row in (DOCS / "README.md").read_text().splitlines() if row.startswith("|") and ".md)" in row]
    assert {row[3].split("](")[1].strip(" )"): [row[2].strip(" `")] for row in rows} == {
        name: list(dict.fromkeys(names)) for name, names in registered.items()
    }


def test_the_lines_of_the_index_are_those_of_the_pages():
    for row in (DOCS / "README.md").read_text().splitlines():
        if row.startswith("|") and ".md)" in row and "none:" not in row:
            name, key = re.search(r"\((\w+\.md)\)", row)[1], row.split("|")[4].strip(" `")
            words = [word for line in commands(name) for word in line]
            label = key.split("=")[0].removesuffix(".class")
            named = key.split("=")[1]
            assert key in words or any(word.startswith(f"{label}=") and f"class: {named}" in word for word in words), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_an_example_is_one_file_with_its_test(page, desk, tmp_path):
    code, tests = [name for name in examples(page) if name.startswith("my_")], f"test_{next(iter(examples(page)))}"
    assert all(len(examples(page)[name].splitlines()) <= 64 for name in code)
    module = importlib.import_module(tests.removesuffix(".py"))
    found = [value for name, value in vars(module).items() if name.startswith("test_")]
    assert found
    for test in found:
        test(**({"tmp_path": tmp_path} if "tmp_path" in inspect.signature(test).parameters else {}))


def test_contributing_tells_the_floors_and_where_each_kind_goes():
    text = (DOCS.parents[1] / "CONTRIBUTING.md").read_text()
    (floors,) = re.findall(r"^`(errors, .*?)`$", text, re.MULTILINE | re.DOTALL)
    assert re.split(r",\s+", floors) == ROOMS
    rows = [[cell.strip(" `") for cell in row.split("|")] for row in text.splitlines() if "](docs/howto/" in row]
    assert {row[3]: row[2] for row in rows} == {each.variable: each.room for each in REGISTRIES}
    for row in rows:
        page = DOCS / re.search(r"\(docs/howto/(.*)\)", row[4])[1]
        assert f"@{row[3]}.register(" in page.read_text()
        assert f"`ldm_privacy/{row[2]}/" in page.read_text(), f"{page.name} names another folder"
