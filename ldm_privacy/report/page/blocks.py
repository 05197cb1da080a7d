"""What a report is made of: texts, tables, pictures, small images. Plain records; the templates write and escape them."""

from collections.abc import Collection, Sequence
from typing import Literal, NamedTuple, TypeAlias

from ldm_privacy.evidence.verdict import Verdict
from ldm_privacy.types import Image, Tone


class Paragraph(NamedTuple):
    """A paragraph of plain text."""

    text: str


class Bullets(NamedTuple):
    """A list of short texts."""

    items: Sequence[str]


class Note(NamedTuple):
    """A box for what must not be overlooked; the title says what it is."""

    title: str
    text: str
    tone: Tone = "unclear"


class Cell(NamedTuple):
    """A cell of a table with a colour behind its text; "muted" is grey letters."""

    text: str
    tone: Tone | Literal["muted", ""] = ""


class DataTable(NamedTuple):
    """A table; its first column names the row and stays in view where the others scroll.

    Rows with the same text in the first column that follow each other are drawn as a group.

    Args:
        columns: Headings.
        rows: A text or `Cell` for each column.
        caption: Stands above the table after its number.
        num_texts: Columns of text at the left; in the others digits stand right-aligned under each other.
        emphasised: Places of the rows set in bold.
        note: Stands below the table.
        is_open: It is seen at once; others unfold under their caption, and are all open in print.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    caption: str
    num_texts: int = 1
    emphasised: Collection[int] = ()
    note: str = ""
    is_open: bool = False


class Picture(NamedTuple):
    """A figure, on white in any theme.

    Args:
        content: The bytes of a PNG or an SVG; see `ldm_privacy.report.figures.base.picture`.
        caption: Stands below the figure after its number, and for it where it can't be seen.
        width: In pixels of the page.
        narrow: The bytes of another drawing of the same for screens as narrow as a phone's; empty where one is for all.
    """

    content: bytes
    caption: str
    width: int
    narrow: bytes = b""


class ImagePair(NamedTuple):
    """A member beside a held-out image, each with its label below it; images in [-1, 1], (channels, height, width)."""

    member: Image
    heldout: Image
    labels: tuple[str, str]
    caption: str


class ImagePairs(NamedTuple):
    """A grid of pairs, numbered among the figures."""

    pairs: Sequence[ImagePair]
    caption: str


class KeyValues(NamedTuple):
    """Names and what they are, in two columns."""

    items: Collection[tuple[str, str]]


class Code(NamedTuple):
    """A command or a file, set as it is, under its label."""

    text: str
    label: str


Block: TypeAlias = Paragraph | Bullets | Note | DataTable | Picture | ImagePairs | KeyValues | Code


class Answer(NamedTuple):
    """What the head of a page says to one question: sentences, and the sections that say more, where the page has them."""

    sentences: Sequence[str]
    see: Sequence[str] = ()


class Head(NamedTuple):
    """What every page says first, to somebody who was not there, in this order.

    Attributes:
        tested: What was tested.
        subject: On what.
        verdict: What it means; its first sentence stands large.
        doubts: What could be wrong.
        advice: What to do.
    """

    tested: Answer
    subject: Answer
    verdict: Verdict
    doubts: Answer
    advice: Answer


class Section(NamedTuple):
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
