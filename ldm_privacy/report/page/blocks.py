"""What a report is made of: texts, tables, pictures, small images. Plain records; `page.py` writes them."""

import base64
import re
import struct
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ldm_privacy.types import Tone

VERDICTS: dict[Tone, str] = {
    "safe": "No exposure found",
    "exposed": "Members are exposed",
    "unclear": "Undecided",
    "leak": "The split leaks",
}
"""What the label of a verdict says where no other label is given: colour never speaks alone."""

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
SVG_BEGINNINGS = (b"<?xml", b"<svg")
SMALL_IMAGE = 96
"""Images up to this many pixels wide are enlarged with hard edges, as pixels."""
LONG_TABLE = 12
"""Printed tables of more rows may break over pages, between rows."""
LONG_TEXT = 36
"""Cells of more characters may break over lines."""


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of plain text."""

    text: str


@dataclass(frozen=True)
class Subheading:
    """A heading below the section's."""

    text: str


@dataclass(frozen=True)
class Bullets:
    """A list of short texts."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Note:
    """A box for what must not be overlooked; the title says what it is."""

    title: str
    text: str
    tone: Tone = "unclear"


@dataclass(frozen=True)
class Verdict:
    """The box at the top: the answer in a few sentences, the first one large.

    Args:
        sentences: At least one.
        tone: Colour of the box.
        label: Short words above the sentences; `VERDICTS[tone]` where empty.
    """

    sentences: tuple[str, ...]
    tone: Tone
    label: str = ""

    def __post_init__(self) -> None:
        if not self.sentences:
            raise ValueError("a verdict needs a sentence")


@dataclass(frozen=True)
class Cell:
    """A cell of a table with more than text.

    Args:
        text: What is shown.
        title: Shown on hovering; say nothing here that a printed page must say too.
        tone: Colour behind the text; "muted" is grey letters.
    """

    text: str
    title: str = ""
    tone: Tone | Literal["muted", ""] = ""


@dataclass(frozen=True)
class DataTable:
    """A table; its first column names the row and stays in view where the others scroll.

    Rows with the same text in the first column that follow each other are drawn as a group.

    Args:
        columns: Headings.
        rows: A text or `Cell` for each column.
        caption: Stands above the table after its number.
        numeric: Places of the columns whose digits stand right-aligned under each other.
        emphasised: Places of the rows set in bold.
        note: Stands below the table.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str | Cell, ...], ...]
    caption: str
    numeric: Collection[int] = frozenset()
    emphasised: Collection[int] = frozenset()
    note: str = ""

    def __post_init__(self) -> None:
        for place, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(f"row {place} of '{self.caption}' has {len(row)} cells for {len(self.columns)} columns")
        for name, places, count in (("column", self.numeric, len(self.columns)), ("row", self.emphasised, len(self.rows))):
            for place in places:
                if not 0 <= place < count:
                    raise ValueError(f"'{self.caption}' has no {name} {place}")

    @property
    def cells(self) -> tuple[tuple[Cell, ...], ...]:
        """Every cell as a `Cell`."""
        return tuple(tuple(Cell(cell) if isinstance(cell, str) else cell for cell in row) for row in self.rows)

    @property
    def group_starts(self) -> frozenset[int]:
        """Places of the rows that begin a group; none where every row has its own name."""
        names = [row[0].text for row in self.cells]
        starts = frozenset(place for place in range(1, len(names)) if names[place] != names[place - 1])
        return starts if len(starts) + 1 < len(names) else frozenset()


@dataclass(frozen=True)
class Picture:
    """A figure, on white in any theme.

    Args:
        content: The bytes of a PNG or an SVG; see `ldm_privacy.report.figures.base.picture`.
        alt: What it shows, for who can't see it.
        caption: Stands below the figure after its number.
        width: In pixels of the page; a PNG's own where it is left out.
    """

    content: bytes
    alt: str
    caption: str
    width: int = 0

    def __post_init__(self) -> None:
        if not self.content.startswith(SVG_BEGINNINGS):
            object.__setattr__(self, "width", self.width or png_size(self.content)[0])


@dataclass(frozen=True)
class Thumbnail:
    """A small image.

    Args:
        png: Its bytes.
        label: Stands below it.
        is_member: Colour of the line under it: member, held-out, or none.
    """

    png: bytes
    label: str
    is_member: bool | None = None

    def __post_init__(self) -> None:
        png_size(self.png)


@dataclass(frozen=True)
class ImageCard:
    """Images that belong together, side by side: a member and its nearest held-out neighbour."""

    images: tuple[Thumbnail, ...]
    caption: str


@dataclass(frozen=True)
class ImageCards:
    """A grid of cards, numbered among the figures."""

    cards: tuple[ImageCard, ...]
    caption: str


@dataclass(frozen=True)
class KeyValues:
    """Names and what they are, in two columns."""

    items: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Code:
    """A command or a file, set as it is."""

    text: str
    label: str = ""


Block: TypeAlias = Paragraph | Subheading | Bullets | Note | DataTable | Picture | ImageCards | KeyValues | Code


@dataclass(frozen=True)
class Section:
    """A part of the report with its own entry in the contents.

    Args:
        id: Its anchor: lower-case letters, digits and hyphens.
        title: Heading.
        lead: What the section says, in a sentence or two; may be empty.
        blocks: In the order they are read.
        place: Among the sections of an evaluation: lower comes first. By default after what was found, before the protocol.
    """

    id: str
    title: str
    lead: str
    blocks: tuple[Block, ...] = ()
    place: float = 75

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9-]*", self.id):
            raise ValueError(f"section id '{self.id}': use lower-case letters, digits and hyphens")


def data_uri(content: bytes) -> str:
    """A PNG or an SVG as an address that holds it; a browser runs no script in an image and loads nothing for it."""
    kind = "png" if content.startswith(PNG_SIGNATURE) else "svg+xml"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def png_size(content: bytes) -> tuple[int, int]:
    """Width and height of a PNG. Raises ValueError for any other file: the page must not carry what it doesn't know."""
    if not content.startswith(PNG_SIGNATURE) or len(content) < 24:
        raise ValueError("the bytes of an image are no PNG")
    return struct.unpack(">II", content[16:24])
