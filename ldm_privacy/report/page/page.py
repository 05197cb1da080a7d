"""A report as one HTML file.

The page needs no network, no script and no file beside it. All text is escaped: names of attacks, paths and messages are
shown, never interpreted. A content security policy in the page forbids scripts and requests on top of that.
"""

import base64
import io
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import jinja2
import PIL.Image

from ldm_privacy.pictures import image_grid
from ldm_privacy.report.page.blocks import Block, Head, Section
from ldm_privacy.report.page.links import Links
from ldm_privacy.types import Image

NUMBERED = {"DataTable": "Table", "Picture": "Figure", "ImagePairs": "Figure"}


class Page(NamedTuple):
    """A whole report; its sections by what a link to them says after the #."""

    title: str
    subtitle: str
    head: Head
    sections: Mapping[str, Section]
    footer: str = ""


def render(page: Page) -> str:
    """The page as HTML: one file, the same bytes for the same page.

    Tables and figures are numbered in reading order. Names of numbers lead to the glossary at the end, which has those alone
    that the page has.
    """
    count: Counter[str] = Counter()
    links = Links()

    def number(block: Block) -> str:
        links.begin()
        word = NUMBERED.get(_kind(block), "")
        count[word] += 1
        return f"{word} {count[word]}" if word else ""

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ldm_privacy.report.page", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.do"],
    )
    environment.filters.update(kind=_kind, png=_png, data_uri=_data_uri, number=number, linked=links)
    return environment.get_template("page.html").render(page=page, links=links)


def write_page(page: Page, path: Path) -> None:
    """Write `render(page)` as UTF-8, whole or not at all. Characters that UTF-8 can't hold (broken file names) become question
    marks."""
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_bytes(render(page).encode("utf-8", errors="replace"))
    temporary.replace(path)


def _kind(block: Block) -> str:
    return type(block).__name__


def _png(image: Image) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(image_grid(image[None])).save(buffer, format="PNG")
    return buffer.getvalue()


def _data_uri(content: bytes) -> str:
    """A PNG or an SVG as an address that holds it; a browser runs no script in an image and loads nothing for it."""
    kind = "png" if content.startswith(b"\x89PNG") else "svg+xml"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
