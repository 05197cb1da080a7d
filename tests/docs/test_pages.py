"""Pages are short, each teaches with something to look at, and every link leads somewhere."""

import re
import subprocess

import pytest
import yaml

from tests.docs.pages import DOCS, FENCE, PAGES, ROOT, TOP, name_of, prose

COMMANDS = """```
pip install -r requirements.txt && python train.py --config digits.yaml
pip install -r requirements.txt && python -m pytest
```"""
MADE = {f"reference/{name}.md" for name in ("configuration", "attacks", "metrics", "components")} | {
    f"about/{name}.md" for name in ("changelog", "contributing", "security")
}


def anchors(page):
    """Of its headings, as GitHub and the site make them."""
    heads = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", head)).strip().lower().replace(" ", "-")
        for head in heads
    }


def test_the_readme_is_one_page_and_has_the_two_commands():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 130
    assert COMMANDS in text


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=name_of)
def test_no_page_is_longer_than_250_lines(page):
    assert len(page.read_text().splitlines()) <= 250


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.parent.name in ("tutorials", "howto", "concepts")], ids=name_of
)
def test_a_page_that_teaches_has_a_picture_or_a_screen(page):
    assert "![" in page.read_text() or FENCE.search(page.read_text())


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_to_a_file_and_a_heading(page):
    for link, anchor in re.findall(r"\]\((?![a-z]+:)([^)#\s]*)(?:#([^)\s]*))?\)", prose(page)):
        there = (page.parent / link).resolve() if link else page
        if there.is_relative_to(DOCS) and there.relative_to(DOCS).as_posix() in MADE:
            continue
        assert there.is_file(), link
        assert not anchor or anchor in anchors(there), f"{link}#{anchor}"


def test_the_navigation_has_every_page_once():
    def pages(node):
        if isinstance(node, str):
            return [node]
        return [page for each in (node.values() if isinstance(node, dict) else node) for page in pages(each)]

    nav = pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    assert len(nav) == len(set(nav))
    assert set(nav) == {page.relative_to(DOCS).as_posix() for page in PAGES if page not in TOP} | MADE


def test_a_page_that_the_code_names_is_there():
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if files.returncode:
        pytest.skip("no checkout of git")
    for name in files.stdout.split("\0"):
        if name.endswith((".py", ".yaml", ".md")) and not name.startswith("tests/") and (ROOT / name).is_file():
            for page in re.findall(r"(?<![\w/.])docs/[\w/]+\.md", (ROOT / name).read_text()):
                assert (ROOT / page).is_file() or page.removeprefix("docs/") in MADE, f"{name}: {page}"
