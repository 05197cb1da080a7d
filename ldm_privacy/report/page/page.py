"""A report as one HTML file.

The page needs no network, no script and no file beside it. All text is escaped: names of attacks, paths and messages are
shown, never interpreted. A content security policy in the page forbids scripts and requests on top of that.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import jinja2

from ldm_privacy.report.page.blocks import (
    LONG_TABLE,
    LONG_TEXT,
    SMALL_IMAGE,
    VERDICTS,
    Block,
    DataTable,
    ImageCards,
    Picture,
    Section,
    Verdict,
    data_uri,
    png_size,
)


@dataclass(frozen=True)
class Page:
    """A whole report."""

    title: str
    subtitle: str
    verdict: Verdict
    sections: tuple[Section, ...]
    footer: str = ""

    def __post_init__(self) -> None:
        for name, count in Counter(section.id for section in self.sections).items():
            if count > 1:
                raise ValueError(f"{count} sections have the id '{name}'")


def render(page: Page) -> str:
    """The page as HTML: one file, the same bytes for the same page. Tables and figures are numbered in reading order."""
    return _templates().get_template("page.html").render(page=page, sections=_numbered(page))


def write_page(page: Page, path: Path) -> None:
    """Write `render(page)` as UTF-8. Characters that UTF-8 can't hold (broken file names) become question marks."""
    path.write_bytes(render(page).encode("utf-8", errors="replace"))


def _numbered(page: Page) -> list[tuple[Section, list[tuple[Block, str]]]]:
    count: Counter[str] = Counter()

    def number(block: Block) -> str:
        word = {DataTable: "Table", Picture: "Figure", ImageCards: "Figure"}.get(type(block))
        if word is None:
            return ""
        count[word] += 1
        return f"{word} {count[word]}"

    return [(section, [(block, number(block)) for block in section.blocks]) for section in page.sections]


def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ldm_privacy.report.page", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(kind=lambda block: type(block).__name__, png_size=png_size, data_uri=data_uri)
    environment.globals.update(VERDICTS=VERDICTS, SMALL_IMAGE=SMALL_IMAGE, LONG_TABLE=LONG_TABLE, LONG_TEXT=LONG_TEXT)
    return environment
