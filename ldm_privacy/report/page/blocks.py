"""What a report is made of: texts, tables, pictures, small images. Plain records; the templates write and escape them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ldm_privacy.types import Tone


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of plain text."""

    text: str


@dataclass(frozen=True)
class Bullets:
    """A list of short texts."""

    items: Sequence[str]


@dataclass(frozen=True)
class Note:
    """A box for what must not be overlooked; the title says what it is."""

    title: str
    text: str
    tone: Tone = "unclear"


@dataclass(frozen=True)
class Cell:
    """A cell of a table with a colour behind its text; "muted" is grey letters."""

    text: str
    tone: Tone | Literal["muted", ""] = ""


@dataclass(frozen=True)
class DataTable:
    """A table; its first column names the row and stays in view where the others scroll.

    Rows with the same text in the first column that follow each other are drawn as a group.

    Args:
        columns: Headings.
        rows: A text or `Cell` for each column.
        caption: Stands above the table after its number.
        num_texts: Columns of text at the left; in the others digits stand right-aligned under each other.
        emphasised: Places of the rows set in bold.
        note: Stands below the table.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    caption: str
    num_texts: int = 1
    emphasised: Collection[int] = ()
    note: str = ""

    @property
    def cells(self) -> list[list[Cell]]:
        """Every cell as a `Cell`."""
        return [[Cell(cell) if isinstance(cell, str) else cell for cell in row] for row in self.rows]

    @property
    def group_starts(self) -> set[int]:
        """Places of the rows that begin a group; none where every row has its own name."""
        names = [row[0].text for row in self.cells]
        starts = {place for place in range(1, len(names)) if names[place] != names[place - 1]}
        return starts if len(starts) + 1 < len(names) else set()


@dataclass(frozen=True)
class Picture:
    """A figure, on white in any theme.

    Args:
        content: The bytes of a PNG or an SVG; see `ldm_privacy.report.figures.base.picture`.
        caption: Stands below the figure after its number, and for it where it can't be seen.
        width: In pixels of the page.
    """

    content: bytes
    caption: str
    width: int


@dataclass(frozen=True)
class Thumbnail:
    """A small image, as a PNG, and its label; a line under it has the colour of members, of held-out images, or none."""

    png: bytes
    label: str
    is_member: bool | None = None


@dataclass(frozen=True)
class ImageCard:
    """Images that belong together, side by side: a member and its nearest held-out neighbour."""

    images: Sequence[Thumbnail]
    caption: str


@dataclass(frozen=True)
class ImageCards:
    """A grid of cards, numbered among the figures."""

    cards: Sequence[ImageCard]
    caption: str


@dataclass(frozen=True)
class KeyValues:
    """Names and what they are, in two columns."""

    items: Collection[tuple[str, str]]


@dataclass(frozen=True)
class Code:
    """A command or a file, set as it is, under its label."""

    text: str
    label: str


Block: TypeAlias = Paragraph | Bullets | Note | DataTable | Picture | ImageCards | KeyValues | Code


@dataclass(frozen=True)
class Section:
    """A part of the report with its own entry in the contents.

    Args:
        title: Heading.
        lead: What the section says, in a sentence or two; may be empty.
        blocks: In the order they are read.
        place: Among the sections of an evaluation: lower comes first. By default after what was found, before the protocol.
    """

    title: str
    lead: str
    blocks: Sequence[Block] = ()
    place: float = 75
